package mem

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

func (s *store) Now() time.Time { return time.Now() }

func (s *store) Sweep(ctx context.Context, eq *emulate.Queue, max int) (emulate.Swept, error) {
	if err := s.usable(ctx); err != nil {
		return emulate.Swept{}, err
	}
	q := s.queue(eq)
	if q == nil {
		return emulate.Swept{}, emulate.ErrGone
	}
	return q.sweep(s, max)
}

func (s *store) Drop(ctx context.Context, eq *emulate.Queue, ds []*emulate.Delivery) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if q := s.queue(eq); q != nil {
		q.drop(ds)
	}
	return nil
}

// unsweep lets others take what the connection took.
func (s *store) unsweep() {
	for _, q := range s.space.all() {
		q.mu.Lock()
		q.dead.returns(func(d *corpse) bool { return d.by == s })
		q.mu.Unlock()
	}
}

func (q *queue) sweep(s *store, max int) (emulate.Swept, error) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return emulate.Swept{}, emulate.ErrGone
	}
	q.dead.returns(func(d *corpse) bool { return !now.Before(d.until) })
	n := 0
	next, over := q.next(now)
	for ; n < max && over; n++ {
		if it := q.ready.pop(); q.def.DeadLetterExchange != "" {
			q.dead.add(it, emulate.Expired)
		}
		next, over = q.next(now)
	}
	out := emulate.Swept{Next: next, Empty: q.ready.n == 0}
	for len(q.dead.waiting) > 0 && len(out.Dead) < max {
		x := q.dead.take(s, now)
		d := handOut(x.item)
		d.Reason = x.reason
		out.Dead = append(out.Dead, d)
	}
	out.More = over || len(q.dead.waiting) > 0
	return out, nil
}

// next is when the time of the message at the head is over, and whether it is.
func (q *queue) next(now time.Time) (end time.Time, over bool) {
	it := q.ready.head()
	if it == nil || !q.expiring {
		return time.Time{}, false
	}
	end = q.def.Over(&it.message, time.Unix(0, it.stored))
	return end, !end.IsZero() && !now.Before(end)
}

func (q *queue) drop(ds []*emulate.Delivery) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, d := range ds {
		q.dead.drop(itemOf(d))
	}
}
