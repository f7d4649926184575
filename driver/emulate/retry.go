package emulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// retrier brings about what did not work at once: publishings that wait for
// the lease or for something that must be made first, parcels whose outcome is
// unknown, and parcels whose queue is gone. It is one goroutine for a
// connection.
type retrier struct {
	c    *conn
	wake chan struct{} // cap 1
	done chan struct{}

	mu     sync.Mutex
	ended  bool
	parked [][]sending
	pruned time.Time // the last time
	open   []retry
}

// retry is a parcel to be tried again.
type retry struct {
	s    *sending
	p    *Parcel
	gone bool
	at   time.Time
}

func (r *retrier) init(c *conn) {
	r.c = c
	r.wake = make(chan struct{}, 1)
	r.done = make(chan struct{})
}

// again takes a parcel whose try ended with err; false when nothing is tried
// any more.
func (r *retrier) again(p *Parcel, s *sending, err error) bool {
	if s.pub.closed.Load() {
		return false
	}
	s.keep()
	gone := errors.Is(err, ErrGone)
	p.Retry = !gone
	at := time.Now().Add(backoff(p.tries))
	if gone && p.tries == 0 {
		at = time.Time{}
	}
	p.tries++
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return false
	}
	r.open = append(r.open, retry{s, p, gone, at})
	signal(r.wake)
	return true
}

// drop gives up what a publisher that was closed has here.
func (r *retrier) drop(p *publisher) {
	r.mu.Lock()
	var given []*sending
	for _, ss := range r.parked {
		if ss[0].pub == p {
			given = append(given, pointers(ss)...)
		}
	}
	for _, o := range r.open {
		if o.s.pub == p {
			given = append(given, o.s)
		}
	}
	r.mu.Unlock()
	giveUp(given)
}

// giveUp resolves; what is resolved is left out when its turn comes.
func giveUp(ss []*sending) {
	for _, s := range ss {
		s.resolve(fmt.Errorf("%w: closed", driver.ErrUnconfirmed))
	}
}

func pointers(ss []sending) []*sending {
	ps := make([]*sending, len(ss))
	for i := range ss {
		ps[i] = &ss[i]
	}
	return ps
}

const maxWait = time.Hour

// run is the retrier goroutine.
func (r *retrier) run() {
	defer close(r.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if r.c.ctx.Err() != nil {
			r.end()
			return
		}
		leased, wait := r.unpark()
		var renewed <-chan struct{}
		if !leased {
			renewed = r.c.lease.next()
			if r.c.lease.routing() != nil {
				continue
			}
		}
		if !leased || wait < maxWait {
			wait = min(wait, r.prune())
		}
		wait = min(wait, r.retryDue())
		timer.Reset(wait)
		select {
		case <-r.c.ctx.Done():
		case <-r.wake:
		case <-renewed:
		case <-timer.C:
		}
	}
}

// retryDue tries again what is due, and says how long until more is.
func (r *retrier) retryDue() time.Duration {
	now := time.Now()
	wait := maxWait
	var due []retry
	r.mu.Lock()
	r.open = slices.DeleteFunc(r.open, func(o retry) bool {
		if o.s.abandoned() {
			return true
		}
		if d := o.at.Sub(now); d > 0 {
			wait = min(wait, d)
			return false
		}
		due = append(due, o)
		return true
	})
	r.mu.Unlock()
	var parcels []*Parcel
	lost := map[string]bool{} // by incarnation: the storage is gone
	for _, o := range due {
		if o.gone {
			parcels = r.reroute(o, lost, parcels)
		} else {
			parcels = append(parcels, o.p)
		}
	}
	if len(parcels) > 0 {
		r.c.store.Append(r.c.ctx, parcels, false)
	}
	return wait
}

// reroute finds a new way for a parcel whose queue is gone. Where the topology
// still names that queue, the broker has lost it, and it leaves the topology.
func (r *retrier) reroute(o retry, lost map[string]bool, parcels []*Parcel) []*Parcel {
	ctx, cancel := context.WithTimeout(r.c.ctx, LeaseTime)
	defer cancel()
	gone, known := lost[o.p.Queue.Incarnation]
	var err error
	if !known {
		gone, err = r.confirm(ctx, o.p.Queue)
	}
	if err == nil && gone {
		lost[o.p.Queue.Incarnation] = true
		if o.s.delayed {
			// There is one queue for those, which may have to be made anew.
			r.anew(o.s)
			return parcels
		}
		var more []*Parcel
		if more, err = r.c.reroute(ctx, o.s, o.p, parcels); err == nil {
			return more
		}
	}
	switch {
	case err == nil:
		return append(parcels, o.p)
	case hopeless(err):
		o.s.finish(err)
	case !r.again(o.p, o.s, ErrGone):
		o.s.finish(fmt.Errorf("%w: closed", driver.ErrUnconfirmed))
	}
	return parcels
}

// confirm reports that a queue's storage is gone, and sees to it that the
// topology does not name it any more. Nobody waits for that to be in force.
func (r *retrier) confirm(ctx context.Context, q *Queue) (gone bool, err error) {
	if r.c.restorer.awaits(q.Name) {
		return false, errAgain
	}
	st, err := r.c.refresh(ctx)
	if err != nil {
		return false, err
	}
	if r.c.restorer.awaits(q.Name) {
		return false, errAgain // the topology is not the one that it was
	}
	if now := st.queues[q.Name]; now == nil || now.Incarnation != q.Incarnation {
		return true, nil
	}
	there, err := r.c.store.QueueExists(ctx, q)
	if err != nil || there {
		return false, err
	}
	_, err = r.c.strike(ctx, q)
	return err == nil, err
}

// reroute replaces a parcel whose queue is gone by parcels to the queues that
// the message is routed to now and was not before.
func (c *conn) reroute(ctx context.Context, s *sending, gone *Parcel, dst []*Parcel) ([]*Parcel, error) {
	st := c.topo.current()
	names, err := s.targets(st, nil)
	if err != nil {
		s.finish(err)
		return dst, nil
	}
	if name := s.lacks(st, names); name != "" {
		if err := c.ready(ctx, st, name); err != nil {
			return dst, err
		}
		return dst, errAgain
	}
	before := []*Parcel{gone}
	if s.fan != nil {
		before = s.fan.parcels
	}
	var fresh []*Parcel
	for _, name := range names {
		q := st.queues[name]
		if !slices.ContainsFunc(before, func(p *Parcel) bool { return p.Queue.Incarnation == q.Incarnation }) {
			p := new(Parcel)
			s.fill(p, q, gone.Publishing)
			fresh = append(fresh, p)
		}
	}
	if s.fan == nil {
		s.fan = &fan{left: 1, parcels: before}
	}
	f := s.fan
	f.mu.Lock()
	f.parcels = append(f.parcels, fresh...)
	f.left += len(fresh) - 1
	last, stored, err := f.left == 0, f.stored, f.err
	f.mu.Unlock()
	switch {
	case !last:
	case err != nil || stored:
		s.resolve(err)
	default:
		s.nowhere()
	}
	return append(dst, fresh...), nil
}

// end resolves what is left.
func (r *retrier) end() {
	r.mu.Lock()
	r.ended = true
	parked, open := r.parked, r.open
	r.parked, r.open = nil, nil
	r.mu.Unlock()
	for _, ss := range parked {
		giveUp(pointers(ss))
	}
	for _, o := range open {
		giveUp([]*sending{o.s})
	}
}
