package emulate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// fakeQueue is a queue of the world, guarded by its mutex.
type fakeQueue struct {
	w         *world
	q         *Queue
	messages  []*Delivery // ready, the next to be delivered first
	later     []*Delivery // given back with a delay
	seq       uint64
	seen      map[string]time.Time // what to deduplicate by, and when it was stored
	held      map[*Delivery]*fakeConsumer
	swept     []*fakeSwept
	consumers []*fakeConsumer // in the order in which they came
	used      bool
	touched   time.Time
	extended  int
	lose      bool // the next Extend finds all holds lost
}

// fakeSwept is what the queue gave up and Drop has not removed.
type fakeSwept struct {
	d     *Delivery
	until time.Time // nobody else gets it until then
}

func (f *fake) Attach(q *Queue) { q.Handle = q.Incarnation }

func (f *fake) CreateQueue(ctx context.Context, q *Queue) error {
	return f.step(ctx, "create", func() error {
		if f.queues[q.Incarnation] == nil {
			f.queues[q.Incarnation] = &fakeQueue{
				w: f.world, q: q, seen: map[string]time.Time{}, held: map[*Delivery]*fakeConsumer{}, touched: f.now(),
			}
		}
		return nil
	})
}

func (f *fake) DeleteQueue(ctx context.Context, q *Queue, o DeleteOptions) error {
	return f.step(ctx, "delete", func() error {
		fq := f.queues[q.Incarnation]
		if fq == nil {
			return nil
		}
		if o.IfEmpty && len(fq.messages)+len(fq.later) > 0 || o.IfUnused && len(fq.consumers) > 0 || o.Idle > 0 && fq.idle() < o.Idle {
			return driver.ErrInUse
		}
		fq.end(driver.ErrNotFound)
		delete(f.queues, q.Incarnation)
		return nil
	})
}

// end is the end of the queue: its consumers hear of it, and what they hold is
// no longer there.
func (q *fakeQueue) end(err error) {
	for _, c := range q.consumers {
		c.in.Fail(err)
	}
	clear(q.held)
}

// on does something to a queue that is there.
func (f *fake) on(ctx context.Context, call string, q *Queue, effect func(*fakeQueue)) error {
	return f.step(ctx, call, func() error {
		fq := f.queues[q.Incarnation]
		if fq == nil {
			return ErrGone
		}
		effect(fq)
		return nil
	})
}

func (f *fake) QueueExists(ctx context.Context, q *Queue) (there bool, err error) {
	err = f.step(ctx, "exists", func() error {
		there = f.queues[q.Incarnation] != nil
		return nil
	})
	return there, err
}

func (f *fake) Append(_ context.Context, parcels []*Parcel, _ bool) {
	for _, p := range parcels {
		f.appends.Add(1)
		f.at("append")
		err := f.append(p)
		f.at("appended")
		if f.crashed.Load() {
			err = driver.ErrUnconfirmed
		}
		p.Done(err)
	}
}

func (f *fake) at(what string) {
	if f.point != nil {
		f.point(what)
	}
}

// fakeWindow is for how long the fake deduplicates.
const fakeWindow = 20 * time.Second

func (f *fake) append(p *Parcel) error {
	if p.Queue.Handle != p.Queue.Incarnation {
		return fmt.Errorf("queue %q was not attached", p.Queue.Name)
	}
	if f.crashed.Load() {
		return driver.ErrUnconfirmed
	}
	if f.refuse != nil {
		if err := f.refuse(p); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queues[p.Queue.Incarnation]
	switch {
	case q == nil:
		return ErrGone
	case time.Since(q.seen[p.DedupID]) < fakeWindow:
		return nil
	case p.Queue.Overflow == routing.RejectPublish && q.over(1, int64(len(p.Publishing.Message.Body))):
		return driver.ErrRejected
	}
	q.seen[p.DedupID] = time.Now()
	q.seq++
	d := &Delivery{Seq: q.seq, Stored: f.now()}
	d.Message, d.Exchange, d.Attempt = *p.Publishing.Message, p.Exchange, 1
	d.Message.ID, d.Message.Header = p.Publishing.ID, maps.Clone(p.Publishing.Message.Header)
	q.put(d)
	q.give()
	q.trim()
	return nil
}

// put makes a message ready, in its place.
func (q *fakeQueue) put(d *Delivery) {
	level := func(d *Delivery) int { return min(int(d.Message.Priority), q.q.MaxPriority) }
	i, _ := slices.BinarySearchFunc(q.messages, d, func(a, b *Delivery) int {
		return cmp.Or(-cmp.Compare(level(a), level(b)), cmp.Compare(a.Seq, b.Seq))
	})
	q.messages = slices.Insert(q.messages, i, d)
}

// over reports whether the queue would be beyond its limits with so much more.
func (q *fakeQueue) over(n int, bytes int64) bool {
	if q.q.MaxLength == 0 && q.q.MaxBytes == 0 {
		return false
	}
	for _, d := range slices.Concat(q.messages, q.later) {
		n++
		bytes += int64(len(d.Message.Body))
	}
	return q.q.MaxLength > 0 && n > q.q.MaxLength || q.q.MaxBytes > 0 && bytes > q.q.MaxBytes
}

// give puts into the inboxes what there is room for.
func (q *fakeQueue) give() {
	for len(q.messages) > 0 {
		i := slices.IndexFunc(q.consumers, func(c *fakeConsumer) bool { return c.in.Room() > 0 })
		if i < 0 || i > 0 && q.q.SingleActiveConsumer {
			break
		}
		d := q.messages[0]
		q.messages = q.messages[1:]
		q.held[d] = q.consumers[i]
		q.consumers[i].in.Put(d)
	}
}

// trim drops the head while the rest is too much. What a message finds that
// was given back leaves before anything is delivered; one that is published may
// be delivered first.
func (q *fakeQueue) trim() {
	for q.q.Overflow != routing.RejectPublish && len(q.messages) > 0 && q.over(0, 0) {
		q.dies(Overflown)
	}
}

// dies takes the head out of the queue.
func (q *fakeQueue) dies(reason Reason) {
	d := q.messages[0]
	q.messages = q.messages[1:]
	if q.q.DeadLetterExchange != "" {
		d.Reason = reason
		q.swept = append(q.swept, &fakeSwept{d: d})
	}
}

func (f *fake) Sweep(ctx context.Context, q *Queue, max int) (s Swept, err error) {
	err = f.on(ctx, "sweep", q, func(fq *fakeQueue) {
		now, n := f.now(), 0
		for ; n < max && len(fq.messages) > 0; n++ {
			end := q.Over(&fq.messages[0].Message, fq.messages[0].Stored)
			if end.IsZero() || now.Before(end) {
				break
			}
			fq.dies(Expired)
		}
		for _, e := range fq.swept {
			switch {
			case now.Before(e.until):
			case len(s.Dead) == max:
				s.More = true
			default:
				e.until = now.Add(f.holdTime())
				again := *e.d
				s.Dead = append(s.Dead, &again)
			}
		}
		s.Empty = len(fq.messages) == 0
		if !s.Empty {
			s.Next = q.Over(&fq.messages[0].Message, fq.messages[0].Stored)
			s.More = s.More || n == max
		}
	})
	return s, err
}

func (f *fake) Drop(ctx context.Context, q *Queue, ds []*Delivery) error {
	return f.step(ctx, "drop", func() error {
		fq := f.queues[q.Incarnation]
		if fq == nil {
			return nil
		}
		fq.swept = slices.DeleteFunc(fq.swept, func(e *fakeSwept) bool {
			return slices.ContainsFunc(ds, func(d *Delivery) bool { return d.Seq == e.d.Seq })
		})
		return nil
	})
}

// holdTime is how long what a dead process held is kept from others.
func (f *fake) holdTime() time.Duration { return cmp.Or(f.lease, 30*time.Second) }

func (f *fake) Usage(ctx context.Context, q *Queue) (u Usage, err error) {
	err = f.on(ctx, "usage", q, func(fq *fakeQueue) {
		u = Usage{Consumers: len(fq.consumers), Used: fq.used, Idle: fq.idle()}
	})
	return u, err
}

func (q *fakeQueue) idle() time.Duration {
	if len(q.consumers) > 0 {
		return 0
	}
	return q.w.now().Sub(q.touched)
}

func (f *fake) Touch(ctx context.Context, q *Queue) error {
	return f.on(ctx, "touch", q, func(fq *fakeQueue) { fq.touched = f.now() })
}

func (f *fake) Inspect(ctx context.Context, q *Queue) (info driver.QueueInfo, err error) {
	err = f.on(ctx, "inspect", q, func(fq *fakeQueue) {
		info = driver.QueueInfo{Ready: len(fq.messages) + len(fq.later), Unsettled: len(fq.held), Consumers: len(fq.consumers)}
	})
	return info, err
}

func (f *fake) Purge(ctx context.Context, q *Queue) (n int, err error) {
	err = f.on(ctx, "purge", q, func(fq *fakeQueue) {
		n = len(fq.messages) + len(fq.later)
		fq.messages, fq.later = nil, nil
	})
	return n, err
}
