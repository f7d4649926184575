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

// suspect puts a parcel to those of its queue, and has somebody find out what became
// of that, unless somebody does.
func (p *publisher) suspect(parcel *emulate.Parcel, err error) {
	q := parcel.Queue
	p.mu.Lock()
	closed := p.closed
	if !closed {
		if len(p.lost[q.Incarnation]) == 0 {
			p.looking.Go(func() { p.examine(q) })
		}
		p.lost[q.Incarnation] = append(p.lost[q.Incarnation], suspect{parcel, err})
	}
	p.mu.Unlock()
	if closed {
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err))
	}
}

// examine finds out what became of the queue of parcels that nobody answered. It does
// not wait for other queues, which may be without a leader for longer.
func (p *publisher) examine(q *emulate.Queue) {
	ctx, cancel := context.WithTimeout(p.ctx, attemptTimeout)
	defer cancel()
	exists, err := p.s.QueueExists(ctx, q)
	outcome := driver.ErrUnconfirmed
	if err == nil && !exists {
		outcome = emulate.ErrGone
	}
	p.mu.Lock()
	lost := p.lost[q.Incarnation]
	delete(p.lost, q.Incarnation)
	p.mu.Unlock()
	for _, sus := range lost {
		sus.parcel.Done(fmt.Errorf("%w: %w", outcome, sus.err))
	}
}
