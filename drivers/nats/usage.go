package nats

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// usedBody is the record's body once a queue has had a subscriber. When the
// record was stored is when the queue was last used.
var usedBody = []byte("used")

// use is the message that records that a queue is in use.
func (h *handle) use(body []byte) *natsgo.Msg {
	return &natsgo.Msg{Subject: h.prefix + ".u", Header: natsgo.Header{"Nats-Rollup": {"sub"}}, Data: body}
}

// Usage reads the records of a queue that is deleted when it is not used; of
// others it does not know since when they are not.
func (s *store) Usage(ctx context.Context, q *emulate.Queue) (emulate.Usage, error) {
	if isKept(q) {
		return s.usageKept(ctx, q)
	}
	h := s.newHandle(q)
	var u emulate.Usage
	err := s.do(ctx, "asking for the queue's use", func(ctx context.Context) error {
		sent := time.Now()
		stream, err := s.js.Stream(ctx, h.stream)
		if err != nil {
			return err
		}
		info, err := stream.Info(ctx, jetstream.WithSubjectFilter(h.prefix+".c.*"))
		if err != nil {
			return err
		}
		s.clock.observe(sent, time.Now(), info.TimeStamp)
		since := info.Created
		u = emulate.Usage{}
		for subject := range info.State.Subjects {
			if !strings.HasSuffix(subject, drainedMark) {
				u.Consumers++
			}
		}
		u.Used = u.Consumers > 0
		if h.counted {
			m, ok, err := s.leaderGet(ctx, h.stream, getRequest{LastFor: h.use(nil).Subject})
			if err != nil {
				return err
			}
			if ok {
				since = m.at
				u.Used = u.Used || len(m.data) > 0
			}
		}
		if u.Consumers == 0 {
			u.Idle = max(0, info.TimeStamp.Sub(since))
		}
		return nil
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, driver.ErrNotFound) {
		err = fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	return u, err
}

// Touch records that the queue was used just now, where it matters.
func (s *store) Touch(ctx context.Context, q *emulate.Queue) error {
	if q.Expires == 0 {
		return nil
	}
	if isKept(q) {
		return s.ask(ctx, q, "noting the queue's use", deed{Do: doTouch}, nil)
	}
	h := s.newHandle(q)
	err := s.do(ctx, "noting the queue's use", func(ctx context.Context) error {
		m, _, err := s.leaderGet(ctx, h.stream, getRequest{LastFor: h.use(nil).Subject})
		if err != nil {
			return err
		}
		_, err = s.publishOne(ctx, h.use(m.data))
		return err
	})
	if errors.Is(err, driver.ErrNotFound) {
		err = fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	return err
}
