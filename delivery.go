package polymq

import (
	"context"
	"time"
)

// Delivery is a message that a subscriber holds, and the duty to settle it.
type Delivery struct {
	*Message
	Exchange    string // where the message was published
	Queue       string // where it was delivered from
	Attempt     int    // 1 plus the earlier deliveries that came to nothing; 0 where the queue cannot count
	Redelivered bool   // the message may have been delivered before
}

// Ack ends the hold: done.
func (d *Delivery) Ack(ctx context.Context) error { panic("unbuilt") }

// Nack gives the message back to its queue, not to be delivered before delay.
func (d *Delivery) Nack(ctx context.Context, delay time.Duration) error { panic("unbuilt") }

// Reject gives the message up: it is dead-lettered or dropped.
func (d *Delivery) Reject(ctx context.Context) error { panic("unbuilt") }

// Extend makes sure that the hold lasts for another lease.
func (d *Delivery) Extend(ctx context.Context) error { panic("unbuilt") }
