package emulate

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/polymq/polymq/driver"
)

// park takes publishings that cannot be routed yet.
func (r *retrier) park(ss []sending) {
	ss[0].keep()
	r.mu.Lock()
	ended := r.ended
	if !ended {
		r.parked = append(r.parked, ss)
		ss[0].pub.parked.Add(int32(len(ss)))
	}
	r.mu.Unlock()
	if ended {
		for i := range ss {
			ss[i].resolve(driver.ErrClosed)
		}
		return
	}
	signal(r.wake)
}

// anew parks a publishing whose parcel has no way any more.
func (r *retrier) anew(s *sending) {
	if s.over.CompareAndSwap(false, true) {
		r.park([]sending{{pub: s.pub, publishing: s.publishing, dedupID: s.dedupID, move: s.move}})
	}
}

// unpark routes what is parked, each publisher's in order, and makes what must
// be made first; leased is false where there is something, but no lease. It
// says how long until there is more to do.
func (r *retrier) unpark() (leased bool, wait time.Duration) {
	wait = maxWait
	later := map[*publisher]bool{} // their turn has not come
	for i := 0; ; {
		ss := r.parkedAt(i)
		if ss == nil {
			return true, wait
		}
		p := ss[0].pub
		if d := time.Until(p.after); later[p] || d > 0 {
			if !later[p] {
				wait = min(wait, d)
			}
			later[p] = true
			i++
			continue
		}
		st := r.c.lease.routing()
		if st == nil && r.c.restorer.pending.Load() {
			return false, wait // the restorer wakes this goroutine
		}
		if st == nil {
			if st = r.c.topo.current(); st.err == nil {
				r.c.lease.changed()
				return false, wait
			}
			// Nobody can route by a topology that cannot be read.
		}
		rest := r.c.send(r.c.ctx, st, ss, false)
		r.unparked(i, len(ss)-len(rest))
		if len(rest) > 0 {
			r.prepare(&rest[0], st)
		}
	}
}

// parkedAt is a batch that is parked; nil after the last.
func (r *retrier) parkedAt(i int) []sending {
	r.mu.Lock()
	defer r.mu.Unlock()
	if i == len(r.parked) {
		return nil
	}
	return r.parked[i]
}

// unparked lets go of the first n of a batch.
func (r *retrier) unparked(i, n int) {
	r.mu.Lock()
	ss := r.parked[i]
	switch {
	case n < len(ss):
		r.parked[i] = ss[n:]
	case i == 0:
		r.parked[0] = nil
		r.parked = r.parked[1:]
	default:
		r.parked = slices.Delete(r.parked, i, i+1)
	}
	r.mu.Unlock()
	ss[0].pub.parked.Add(-int32(n))
}

// prepare makes what a publishing needs. Where that cannot be, it is resolved;
// where it failed, the publisher waits.
func (r *retrier) prepare(s *sending, st *state) {
	ctx, cancel := context.WithTimeout(r.c.ctx, LeaseTime)
	defer cancel()
	name := s.lacking(st)
	if name == "" {
		return
	}
	err := r.c.ready(ctx, st, name)
	if err == nil && s.lacking(r.c.topo.current()) == name {
		err = errAgain
	}
	p := s.pub
	switch {
	case err == nil:
		p.failed = 0
	case hopeless(err):
		s.resolve(err)
	default:
		if p.failed == 0 && r.c.ctx.Err() == nil {
			r.c.cfg.Logger.Warn("what a message needs could not be made; trying again", "queue", name, "error", err)
		}
		p.after = time.Now().Add(backoff(p.failed))
		p.failed++
	}
}

// hopeless reports that trying again is no use, nor would it tell an outcome that is
// unknown: whoever publishes is to hear of it.
func hopeless(err error) bool {
	return errors.Is(err, errors.ErrUnsupported) || errors.Is(err, driver.ErrPermission) || errors.Is(err, driver.ErrRejected)
}

// lacking is what lacks names by a state; "" also where the message need not be
// sent any more.
func (s *sending) lacking(st *state) string {
	if s.abandoned() {
		return ""
	}
	names, err := s.targets(st, nil)
	if err != nil {
		return ""
	}
	return s.lacks(st, names)
}

// ready makes what lacks names.
func (c *conn) ready(ctx context.Context, st *state, name string) error {
	if name == delayedQueue {
		_, err := c.ensureDelayed(ctx)
		return err
	}
	return c.ensureExpiring(ctx, st.queues[name])
}

// pruneEvery is how long what was given up stays parked.
const pruneEvery = time.Second

// prune lets go of what is parked and was given up as a whole: whoever gives up
// may publish again, so that without a lease, say, there would be no end to it.
// It returns how long until the next time.
func (r *retrier) prune() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if wait := r.pruned.Add(pruneEvery).Sub(now); wait > 0 {
		return wait
	}
	r.pruned = now
	r.parked = slices.DeleteFunc(r.parked, func(ss []sending) bool {
		for i := range ss {
			if !ss[i].abandoned() {
				return false
			}
		}
		ss[0].pub.parked.Add(-int32(len(ss)))
		return true
	})
	return pruneEvery
}
