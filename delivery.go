package polymq

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
)

// Delivery is a message that a subscriber holds, and the duty to settle it
// once, with Ack, Nack or Reject. Until then the library keeps the hold,
// however long that takes; if the process dies, or the subscriber is closed,
// the message comes again. Its methods are safe for concurrent use.
//
// What Header and Body hold must not be changed in place, also not after the
// settlement: a driver may be storing the message again, for a Nack with a delay
// or as a dead letter. The fields of Message may be set.
//
// A settlement that failed because ctx ended, or for another reason than
// ErrLost or ErrClosed, did not take place and can be tried again. Settle with
// a ctx that outlives the work: a shutdown that has ended the handler's ctx
// should not keep its message from being acknowledged.
type Delivery struct {
	*Message
	// Exchange is where the message was published.
	Exchange string
	// Queue is where it was delivered from.
	Queue string
	// Attempt is 1 plus the earlier deliveries that ended in Nack, in the end
	// of a lease or of a connection; 0 where the queue cannot count.
	Attempt int
	// Redelivered says that the message may have been delivered before.
	Redelivered bool

	// The driver's delivery. It is an array so that Receive can pass it to
	// the driver as the buffer to fill.
	held  [1]*driver.Delivery
	s     *Subscriber // nil for a delivery that no subscriber made
	src   *source     // where it came from
	state atomic.Uint32
}

// The states of a delivery.
const (
	open = iota
	settling
	settled
)

// Ack ends the hold: the work is done. It returns nil once the settlement is
// accepted for sending, which happens within 5 ms, and by Close at the latest.
// ErrLost means that the hold was already lost and the message comes again;
// ErrSettled that the delivery was settled before.
func (d *Delivery) Ack(ctx context.Context) error {
	return d.settle(ctx, "ack", driver.Ack, 0)
}

// Nack gives the message back to its queue, and to no other, not to be
// delivered before delay has passed; 0 means at once. A negative delay is
// ErrInvalid. It returns as Ack does.
func (d *Delivery) Nack(ctx context.Context, delay time.Duration) error {
	if delay < 0 {
		return d.wrap("nack", invalid("the delay %v is negative", delay))
	}
	if delay > 0 && d.s != nil && !d.s.conn.features.Has(FeatureDelayedNack) {
		return d.wrap("nack", unsupported("this backend does not have the feature %q: use a delay of 0", FeatureDelayedNack))
	}
	return d.settle(ctx, "nack", driver.Nack, min(delay, forever))
}

// Reject gives the message up: it goes to the queue's dead-letter exchange, or
// is dropped where there is none. It returns as Ack does.
func (d *Delivery) Reject(ctx context.Context) error {
	return d.settle(ctx, "reject", driver.Reject, 0)
}

// Extend makes sure that the hold lasts for another lease from now. The
// library extends leases by itself; Extend is for asking, before a step that
// must not be done twice, whether the hold still stands: ErrLost if not.
func (d *Delivery) Extend(ctx context.Context) error {
	err := d.usable(ctx)
	if err == nil && d.state.Load() != open {
		err = ErrSettled
	}
	if err == nil {
		err = d.src.ds.Extend(ctx, d.held[0])
	}
	return d.wrap("extend", err)
}

// Settled reports whether the delivery has been settled, or its settlement has
// begun.
func (d *Delivery) Settled() bool { return d.state.Load() != open }

func (d *Delivery) settle(ctx context.Context, op string, o driver.Outcome, delay time.Duration) error {
	err := d.usable(ctx)
	if err == nil && !d.state.CompareAndSwap(open, settling) {
		err = ErrSettled
	}
	if err != nil {
		return d.wrap(op, err)
	}
	begun := d.s.now()
	err = d.src.ds.Settle(ctx, d.held[0], o, delay)
	final := err == nil || errors.Is(err, ErrLost) || errors.Is(err, ErrClosed)
	if final {
		d.state.Store(settled)
		_ = d.src.leave(ctx) // what comes of the old consumption's end is not the settlement's
	} else {
		d.state.Store(open)
	}
	err = d.wrap(op, err)
	if d.s.hooks != nil {
		d.s.settled(ctx, SettleEvent{Delivery: d, Outcome: o, Delay: delay, Begun: begun, Err: err}, final)
	}
	return err
}

// usable is the error of a call that need not reach the driver.
func (d *Delivery) usable(ctx context.Context) error {
	if d.s == nil {
		return invalid("the delivery comes from no subscriber")
	}
	return ctx.Err()
}

func (d *Delivery) wrap(op string, err error) error {
	if d.s == nil {
		return wrap(op, "", d.Queue, err)
	}
	return d.s.conn.wrap(op, d.Queue, err)
}
