package emulate

import (
	"errors"

	"github.com/polymq/polymq/driver"
)

// exhaust gives up what was handed out for the last time and not settled: given
// back, it would wait in its queue, counted as ready, for a subscriber that is
// not to get it. The store gives back what is not moved in time.
func (s *subscriber) exhaust() {
	if s.q.MaxAttempts == 0 {
		return
	}
	for _, d := range s.in.usedUp(s.q.MaxAttempts) {
		if !s.moves.has(d) {
			s.giveUp(d, Exhausted)
		}
	}
}

// usedUp is what is held, was handed out and has had so many attempts; nothing
// where the inbox ended otherwise than by its subscriber, as when its queue was
// deleted.
func (in *Inbox) usedUp(attempts int) (ds []*Delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !errors.Is(in.err, driver.ErrClosed) {
		return nil
	}
	for d := in.list.next; d != &in.list; d = d.next {
		if d.handed && d.Attempt >= attempts {
			ds = append(ds, d)
		}
	}
	return ds
}

// has reports whether a message is being moved.
func (x *mover) has(d *Delivery) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	for v := range x.open {
		if v.d == d {
			return true
		}
	}
	return false
}
