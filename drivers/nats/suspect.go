package nats

import (
	"context"
	"fmt"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// suspect is a parcel whose queue nobody listened for.
type suspect struct {
	parcel *emulate.Parcel
	err    error
}

// suspect hands a parcel to keep, which finds out what became of its queue.
func (p *publisher) suspect(parcel *emulate.Parcel, err error) {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.lost = append(p.lost, suspect{parcel, err})
	}
	p.mu.Unlock()
	if closed {
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err))
		return
	}
	signal(p.wake)
}

// examine finds out what became of the queues of parcels that nobody answered,
// once for each queue.
func (p *publisher) examine() {
	p.mu.Lock()
	lost := p.lost
	p.lost = nil
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(p.ctx, lookTimeout)
	defer cancel()
	known := map[string]bool{} // by incarnation: it is gone
	for _, sus := range lost {
		q := sus.parcel.Queue
		gone, ok := known[q.Incarnation]
		if !ok {
			exists, err := p.s.QueueExists(ctx, q)
			gone = err == nil && !exists
			known[q.Incarnation] = gone
		}
		if gone {
			sus.parcel.Done(fmt.Errorf("%w: %w", emulate.ErrGone, sus.err))
		} else {
			sus.parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, sus.err))
		}
	}
}
