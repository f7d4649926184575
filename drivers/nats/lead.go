package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
)

// leadSubject is the record of who looks after the namespace's queues: among
// the leases, and no lease, which is JSON. Its body is the client.
func (g ground) leadSubject() string { return g.prefix + ".l.lead" }

// Lead stores the record on condition that the one before is still the last,
// and that it is this client's own or has run out.
func (s *store) Lead(ctx context.Context, client string, term time.Duration) (bool, error) {
	g, err := s.recentGround(ctx)
	if err != nil {
		return false, err
	}
	leads := false
	err = s.do(ctx, "taking the lead", func(ctx context.Context) error {
		m, ok, err := s.leaderGet(ctx, g.stream, getRequest{LastFor: g.leadSubject()})
		if err != nil {
			return err
		}
		mine := ok && string(m.data) == client
		if ok && len(m.data) > 0 && !mine || !mine && term <= 0 {
			leads = false
			return nil
		}
		record := &natsgo.Msg{Subject: g.leadSubject(), Header: natsgo.Header{
			"Nats-Expected-Last-Subject-Sequence": {strconv.FormatUint(m.seq, 10)},
			"Nats-TTL":                            {wholeSeconds(term).String()},
		}}
		if term > 0 {
			record.Data = []byte(client)
		}
		_, err = s.publishOne(ctx, record)
		switch {
		case err == nil:
			leads = term > 0
		case hasCode(err, codeWrongLastSequence, codeBusy): // another was faster
			leads = false
		default:
			return err
		}
		return nil
	})
	if isStreamGone(err) || errors.Is(err, driver.ErrNotFound) {
		return false, fmt.Errorf("the topology is gone: %w", err)
	}
	return leads, err
}

// wholeSeconds rounds up to what the server's times to live can be.
func wholeSeconds(d time.Duration) time.Duration {
	return max(time.Second, (d + time.Second - 1).Truncate(time.Second))
}
