package nats

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// isKept reports whether a queue has a book: what it asks for cannot be had of
// the server's consumers. The others have none, and are faster.
func isKept(q *emulate.Queue) bool {
	return q.MaxLength > 0 || q.MaxBytes > 0 || q.MaxPriority > 0 || q.SingleActiveConsumer
}

func (s *store) consumeKept(ctx context.Context, q *emulate.Queue, in *emulate.Inbox) (emulate.Consumer, error) {
	l, err := s.ledger(q)
	if err != nil {
		return nil, err
	}
	m, err := l.consume(ctx, in)
	if err != nil {
		return nil, fmt.Errorf("consuming: %w", err)
	}
	return m, nil
}

// ask does something about the book of a kept queue, at the time of it; look,
// if any, sees what came of it.
func (s *store) ask(ctx context.Context, q *emulate.Queue, what string, d deed, look func(*ledger, *book, result)) error {
	l, err := s.ledger(q)
	if err != nil {
		return err
	}
	var see func(*book, result)
	if look != nil {
		see = func(b *book, r result) { look(l, b, r) }
	}
	if err := l.do(ctx, d, nil, see); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func (s *store) inspectKept(ctx context.Context, q *emulate.Queue) (info driver.QueueInfo, err error) {
	err = s.ask(ctx, q, "inspecting the queue", deed{Do: doTick}, func(_ *ledger, b *book, _ result) {
		info = driver.QueueInfo{Ready: b.ready + len(b.delayed), Unsettled: b.unsettled(), Consumers: b.consumers()}
	})
	return info, err
}

// purgeKept purges what is in the stream by now: the deed may come about after
// its caller gave up, when others have published.
func (s *store) purgeKept(ctx context.Context, q *emulate.Queue) (n int, err error) {
	var last uint64
	err = s.do(ctx, "purging the queue", func(ctx context.Context) error {
		stream, err := s.js.Stream(ctx, s.newHandle(q).stream)
		if err == nil {
			last = stream.CachedInfo().State.LastSeq
		}
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return 0, fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	if err != nil || last == 0 {
		return 0, err
	}
	d := deed{Do: doPurge, By: rand.Text(), List: [][]int64{{int64(last)}}}
	err = s.ask(ctx, q, "purging the queue", d, func(_ *ledger, _ *book, r result) { n = r.n })
	return n, err
}

func (s *store) usageKept(ctx context.Context, q *emulate.Queue) (u emulate.Usage, err error) {
	err = s.ask(ctx, q, "asking for the queue's use", deed{Do: doTick}, func(l *ledger, b *book, _ result) {
		u = emulate.Usage{Consumers: b.consumers(), Used: b.used}
		if u.Consumers == 0 {
			u.Idle = max(0, time.Duration(b.now-max(b.idle, l.created)))
		}
	})
	return u, err
}

// sweepKept looks into the book first, so that a queue where nothing is due is
// not written to.
func (s *store) sweepKept(ctx context.Context, q *emulate.Queue, n int) (emulate.Swept, error) {
	l, err := s.ledger(q)
	if err != nil {
		return emulate.Swept{}, err
	}
	if err := l.ready(ctx); err != nil {
		return emulate.Swept{}, fmt.Errorf("sweeping the queue: %w", err)
	}
	var took []entry
	var swept emulate.Swept
	look := func(b *book, r result) {
		took = took[:0]
		for _, e := range r.took {
			took = append(took, *e)
		}
		swept = emulate.Swept{More: b.unswept(b.now) > 0, Empty: b.ready+len(b.delayed)+len(b.left) == 0}
		var next int64
		if e := b.head(); e != nil {
			next = e.over
		}
		for _, e := range b.left {
			if e.swept > b.now && (next == 0 || e.swept < next) {
				next = e.swept
			}
		}
		if next > 0 {
			swept.Next = time.Unix(0, next)
		}
	}
	now := s.Now().UnixNano()
	l.mu.Lock()
	b := l.book
	due := b == nil || !l.caught || b.unswept(now) > 0
	if b != nil {
		e := b.head()
		due = due || e != nil && e.over > 0 && e.over <= now
		look(b, result{})
	}
	l.mu.Unlock()
	if !due {
		return swept, nil
	}
	if err := l.do(ctx, deed{Do: doSweep, N: n, MS: wholeMS(s.opt.lease)}, nil, look); err != nil {
		return emulate.Swept{}, fmt.Errorf("sweeping the queue: %w", err)
	}
	if len(took) == 0 {
		return swept, nil
	}
	seqs := make([]uint64, len(took))
	for i, e := range took {
		seqs[i] = e.seq
	}
	msgs, err := s.fetch(ctx, l.h, seqs)
	if err != nil {
		return emulate.Swept{}, err // they come again when the lease is over
	}
	var missing [][]int64
	for i, e := range took {
		if msgs[i] == nil { // deleted by somebody else
			missing = append(missing, []int64{int64(e.seq)})
			continue
		}
		d := &emulate.Delivery{Stored: time.Unix(0, e.stored), Reason: e.reason, Seq: e.seq, Gen: e.gen}
		d.Queue, d.Attempt, d.Redelivered = q.Name, e.failed+1, e.gen > 0
		if err := read(&d.Delivery, msgs[i]); err != nil {
			s.cfg.Logger.Warn("nats: a property of a message cannot be read and is left out", "queue", q.Name, "sequence", e.seq, "error", err)
		}
		swept.Dead = append(swept.Dead, d)
	}
	if len(missing) > 0 {
		return swept, l.do(ctx, deed{Do: doDrop, List: missing}, nil, nil)
	}
	return swept, nil
}

func (s *store) dropKept(ctx context.Context, q *emulate.Queue, ds []*emulate.Delivery) error {
	for len(ds) > 0 {
		n := min(len(ds), maxListed)
		list := make([][]int64, n)
		for i, d := range ds[:n] {
			list[i] = []int64{int64(d.Seq)}
		}
		if err := s.ask(ctx, q, "removing what was moved", deed{Do: doDrop, List: list}, nil); err != nil {
			return err
		}
		ds = ds[n:]
	}
	return nil
}
