package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// leaseTTL removes a client's lease record: a little later than emulate asks
// for, since what belonged to the client goes with it.
const leaseTTL = 12 * emulate.LeaseTime

// leaseRecord is what the stream keeps of a lease.
type leaseRecord struct {
	Client  string `json:"client"`
	Version uint64 `json:"version"`
}

// RenewLease stores the record on condition that the version's message is
// still the one of v. The record's subject names the epoch, so that a renewal
// that belongs to a stream that was removed finds nobody.
func (s *store) RenewLease(ctx context.Context, client string, v emulate.Version) error {
	if err := s.recheck(ctx, v); err != nil {
		return err
	}
	prefix := s.names.topology(v.Epoch)
	m := &natsgo.Msg{
		Subject: prefix + ".l." + token(client),
		Header: natsgo.Header{
			"Nats-Expected-Last-Subject-Sequence":         {strconv.FormatUint(v.N, 10)},
			"Nats-Expected-Last-Subject-Sequence-Subject": {prefix + ".v"},
			"Nats-TTL": {leaseTTL.String()},
		},
	}
	var err error
	if m.Data, err = json.Marshal(leaseRecord{Client: client, Version: v.N}); err != nil {
		return err
	}
	for {
		sent := time.Now()
		err := s.once(ctx, func(ctx context.Context) error {
			_, err := s.publishOne(ctx, m)
			return err
		})
		switch {
		case err == nil:
			s.topology.confirmed(v, sent, time.Time{})
			return nil
		case hasCode(err, codeWrongLastSequence):
			return emulate.ErrStale
		case hasCode(err, codeBusy):
			if err := wait(ctx, time.Millisecond); err != nil {
				return err
			}
			continue
		case errors.Is(err, natsgo.ErrNoResponders):
			g, gerr := s.ground(ctx)
			if gerr != nil {
				return gerr
			}
			if g.epoch != v.Epoch {
				return emulate.ErrStale
			}
		case !passing(err) || errors.Is(err, driver.ErrClosed):
			return fmt.Errorf("renewing the topology lease: %w", wrap(err))
		}
		// Renewing twice is harmless.
		if werr := wait(ctx, 20*time.Millisecond); werr != nil {
			return fmt.Errorf("renewing the topology lease: %w: %w", werr, err)
		}
	}
}

// recheck makes sure, after a connection was lost, that the server did not
// lose the version with it: a power failure can take back what was written
// since the last sync, and the sequence is then given to other messages. The
// time at which the version's message was stored tells them apart.
func (s *store) recheck(ctx context.Context, v emulate.Version) error {
	t := &s.topology
	t.mu.Lock()
	due, stamp := t.recheck && t.known == v && v.N > 0, t.stamp
	t.mu.Unlock()
	if !due {
		return nil
	}
	sent := time.Now()
	var m stored
	var ok bool
	err := s.do(ctx, "reading the topology's version", func(ctx context.Context) (err error) {
		m, ok, err = s.leaderGet(ctx, s.names.topologyStream(), getRequest{LastFor: s.names.topology(v.Epoch) + ".v"})
		return err
	})
	if err != nil && !errors.Is(err, driver.ErrNotFound) {
		return err
	}
	if err != nil || !ok || m.seq != v.N || stamp.IsZero() || !m.at.Equal(stamp) {
		return emulate.ErrStale
	}
	t.confirmed(v, sent, stamp)
	return nil
}

// Leases reads the records as of the leader's last sequence. A stream with one
// replica is its own leader; with more, a replica that lags could leave a
// client out, so the leader is asked record by record.
//
// JetStream cannot forget a lease while clients still count on it, so
// restarted is negative. A server that is killed has handed every confirmed
// write to the kernel. A machine that loses power forgets what it had not
// synced (sync_interval, two minutes by default), but it is then away for
// longer than a lease lasts, and recheck finds a version that was lost.
// Replicated streams keep what a majority has; a cluster that is to survive
// the power failure of a majority needs sync_interval: always.
func (s *store) Leases(ctx context.Context) ([]emulate.Lease, time.Duration, error) {
	g, err := s.recentGround(ctx)
	if err != nil {
		return nil, 0, err
	}
	var leases []emulate.Lease
	add := func(e stored) {
		var r leaseRecord
		if e.subject != g.leadSubject() && json.Unmarshal(e.data, &r) == nil {
			leases = append(leases, emulate.Lease{Client: r.Client, Version: emulate.Version{Epoch: g.epoch, N: r.Version}})
		}
	}
	filter := g.prefix + ".l.*"
	for from, more := uint64(1), true; more; {
		err := s.do(ctx, "reading the topology leases", func(ctx context.Context) error {
			if g.replicas > 1 {
				m, ok, err := s.leaderGet(ctx, g.stream, getRequest{Seq: from, NextFor: filter})
				if more = ok; ok {
					add(m)
					from = m.seq + 1
				}
				return err
			}
			var page []stored
			next, m, err := s.page(ctx, g.stream, getRequest{Seq: from, NextFor: filter}, func(e stored) { page = append(page, e) })
			if err != nil {
				return err
			}
			for _, e := range page {
				add(e)
			}
			from, more = next, m
			return nil
		})
		if err != nil {
			return nil, 0, err
		}
	}
	return leases, -1, nil
}

// EndLease stores an empty record, which is none and soon gone: who may publish
// need not be allowed to purge the topology's stream.
func (s *store) EndLease(ctx context.Context, client string) error {
	g, err := s.recentGround(ctx)
	if err != nil {
		return err
	}
	return s.do(ctx, "ending the topology lease", func(ctx context.Context) error {
		_, err := s.publishOne(ctx, &natsgo.Msg{Subject: g.prefix + ".l." + token(client), Header: natsgo.Header{"Nats-TTL": {time.Second.String()}}})
		if errors.Is(err, natsgo.ErrNoResponders) {
			return nil // the stream is gone, or has no leader: the lease runs out
		}
		return err
	})
}
