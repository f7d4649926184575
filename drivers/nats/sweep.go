package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// swept are the messages that this process's Sweep has taken from queues that
// have no book, and nobody has removed yet.
type swept struct {
	mu    sync.Mutex
	until map[string]map[uint64]time.Time // when the hold ends, by incarnation and sequence
}

func (w *swept) add(q *emulate.Queue, seq uint64, until time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.until == nil {
		w.until = map[string]map[uint64]time.Time{}
	}
	if w.until[q.Incarnation] == nil {
		w.until[q.Incarnation] = map[uint64]time.Time{}
	}
	w.until[q.Incarnation][seq] = until
}

func (w *swept) remove(q *emulate.Queue, seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.until[q.Incarnation], seq)
	if len(w.until[q.Incarnation]) == 0 {
		delete(w.until, q.Incarnation)
	}
}

// of are the sequences of a queue.
func (w *swept) of(incarnation string) (seqs []uint64) {
	now := time.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for seq, until := range w.until[incarnation] {
		if now.Before(until) {
			seqs = append(seqs, seq)
		} else {
			delete(w.until[incarnation], seq)
		}
	}
	return seqs
}

// Sweep looks at the head of the queue first, and takes from it only if its
// time is over.
func (s *store) Sweep(ctx context.Context, q *emulate.Queue, max int) (emulate.Swept, error) {
	if isKept(q) {
		return s.sweepKept(ctx, q, max)
	}
	h := s.newHandle(q)
	var res emulate.Swept
	err := s.do(ctx, "sweeping the queue", func(ctx context.Context) error {
		res = emulate.Swept{}
		heads, err := s.heads(ctx, q, h, max)
		if err != nil {
			return err
		}
		now, n := s.Now(), 0
		res.Empty = len(heads) == 0
		for n < len(heads) && !heads[n].IsZero() && !heads[n].After(now) {
			n++
		}
		if n < len(heads) {
			res.Next = heads[n]
		}
		res.More = n == len(heads) && n > 0
		if n = min(n, max); n == 0 {
			return nil
		}
		res.Dead, err = s.take(ctx, q, h, n)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, driver.ErrNotFound) {
		err = fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	return res, err
}

// heads are when the time of the messages is over that a subscriber would get
// next, as far as that can be told without taking them: those that were given
// back, of which the oldest is taken to be the first, then the others. It is
// one that is not over, or several of which the last may be.
func (s *store) heads(ctx context.Context, q *emulate.Queue, h *handle, max int) (heads []time.Time, err error) {
	sent := time.Now()
	consumer, err := s.js.Consumer(ctx, h.stream, consumerName)
	if err != nil {
		return nil, err
	}
	info := consumer.CachedInfo()
	s.clock.observe(sent, time.Now(), info.TimeStamp)
	from, back := info.Delivered.Stream, []uint64(nil)
	if info.NumAckPending > 0 {
		if back, err = s.givenBack(ctx, q, h, info); err != nil {
			return nil, err
		}
	}
	add := func(e stored) bool {
		_, _, ttl := outside(&natsgo.Msg{Header: e.header})
		over := q.Over(&driver.Message{TTL: ttl}, e.at)
		heads = append(heads, over)
		return !over.IsZero() && !over.After(s.Now())
	}
	if len(back) > 0 {
		msgs, err := s.fetchOnce(ctx, h, back[:min(len(back), max)])
		if err != nil {
			return nil, err
		}
		for _, m := range msgs {
			if m == nil {
				continue // settled meanwhile
			}
			e, err := parseStored(m)
			if err != nil {
				return nil, err
			}
			if !add(e) {
				return heads, nil
			}
		}
	}
	if info.NumPending == 0 {
		return heads, nil
	}
	for n := 1; n <= max; n = max { // mostly, the first is not over
		over := true
		before := len(heads)
		_, _, err := s.page(ctx, h.stream, getRequest{Seq: from + 1, NextFor: h.subject, Batch: n, MaxBytes: sweepBytes}, func(e stored) {
			if over {
				over = add(e)
			}
		})
		if err != nil || !over || n == max || len(heads) == before {
			return heads, err
		}
		heads = heads[:before]
	}
	return heads, nil
}

// sweepBytes is how much of a queue is looked at at once.
const sweepBytes = 1 << 20

// givenBack are the sequences that were delivered once and that nobody holds,
// in order; those among them that wait for a delay too.
func (s *store) givenBack(ctx context.Context, q *emulate.Queue, h *handle, info *jetstream.ConsumerInfo) (back []uint64, err error) {
	holders, err := s.holders(ctx, h)
	if err != nil {
		return nil, err
	}
	held := s.swept.of(q.Incarnation)
	for _, seqs := range holders {
		if seqs == nil {
			return nil, nil // somebody died, and what was held comes in time
		}
		held = append(held, seqs...)
	}
	if len(held) >= info.NumAckPending {
		return nil, nil
	}
	slices.Sort(held)
	for from, more := uint64(1), true; more && from <= info.Delivered.Stream; {
		from, more, err = s.page(ctx, h.stream, getRequest{Seq: from, NextFor: h.subject}, func(e stored) {
			if _, ok := slices.BinarySearch(held, e.seq); !ok && e.seq <= info.Delivered.Stream {
				back = append(back, e.seq)
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return back, nil
}

// take takes n messages as a subscriber does. Those whose time is not over were
// not at the head after all, and go back untouched.
func (s *store) take(ctx context.Context, q *emulate.Queue, h *handle, n int) (dead []*emulate.Delivery, err error) {
	until := time.Now().Add(s.opt.lease)
	msgs, err := s.pull(ctx, h, n, 0)
	now := s.Now()
	for _, m := range msgs {
		d := &emulate.Delivery{Ref: m.Reply}
		a, ok := parseAckSubject(m.Reply)
		if !ok {
			continue
		}
		d.Seq, d.Gen, d.Stored, d.Attempt, d.Redelivered = a.seq, uint64(a.deliveries), time.Unix(0, a.stored), a.deliveries, a.deliveries > 1
		d.Delivery.Queue = q.Name
		if rerr := read(&d.Delivery, m); rerr != nil {
			s.cfg.Logger.Warn("nats: a property of a message cannot be read and is left out", "queue", q.Name, "sequence", a.seq, "error", rerr)
		}
		over := q.Over(&d.Message, d.Stored)
		switch {
		case over.IsZero() || over.After(now):
			err = errors.Join(err, s.putBack(ctx, h, a.seq, a.deliveries, m.Reply))
		case q.DeadLetterExchange == "":
			err = errors.Join(err, s.nc.Publish(m.Reply, ackBody))
		default:
			d.Reason = emulate.Expired
			dead = append(dead, d)
			s.swept.add(q, a.seq, until)
		}
	}
	if err != nil && len(dead) == 0 {
		return nil, err
	}
	return dead, nil // what failed comes again with the lease
}

// putBack gives a message back that nobody has seen.
func (s *store) putBack(ctx context.Context, h *handle, seq uint64, delivered int, ack string) error {
	uncounted := 0
	if delivered > 1 {
		m, ok, err := s.leaderGet(ctx, h.stream, getRequest{LastFor: h.record(seq, 1).Subject})
		if err != nil {
			return err
		}
		if ok {
			uncounted, _ = strconv.Atoi(string(m.data))
		}
	}
	if _, err := s.publishOne(ctx, h.record(seq, uncounted+1)); err != nil {
		return err
	}
	return s.nc.Publish(ack, nakBody)
}

// Drop acknowledges what Sweep took.
func (s *store) Drop(ctx context.Context, q *emulate.Queue, ds []*emulate.Delivery) error {
	if isKept(q) {
		return s.dropKept(ctx, q, ds)
	}
	return s.do(ctx, "removing what was moved", func(ctx context.Context) error {
		for _, d := range ds {
			if err := s.nc.Publish(d.Ref.(string), ackBody); err != nil {
				return err
			}
			s.swept.remove(q, d.Seq)
		}
		return s.nc.FlushWithContext(ctx)
	})
}
