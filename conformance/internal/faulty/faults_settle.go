package faulty

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// settling is a settle hook that settles otherwise.
func settling(change func(o *driver.Outcome, delay *time.Duration)) func(context.Context, *subscriber, *driver.Delivery, driver.Outcome, time.Duration) error {
	return func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		change(&o, &delay)
		return s.Subscriber.Settle(ctx, d, o, delay)
	}
}

// again is a settle hook that publishes in place of Nack.
func again(publish func(s *subscriber, d *driver.Delivery)) func(context.Context, *subscriber, *driver.Delivery, driver.Outcome, time.Duration) error {
	return func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if o != driver.Nack {
			return s.Subscriber.Settle(ctx, d, o, delay)
		}
		publish(s, d)
		return s.Subscriber.Settle(ctx, d, driver.Ack, 0)
	}
}

// dying changes the first entry of x-death.
func dying(change func(death map[string]any)) func(context.Context, *subscriber, []*driver.Delivery) (int, error) {
	return delivering(func(d *driver.Delivery) {
		if list, ok := d.Message.Header["x-death"].([]any); ok {
			change(list[0].(map[string]any))
		}
	})
}

var settleFaults = []Fault{
	{Name: "does not count", Promise: 15, receive: delivering(func(d *driver.Delivery) { d.Attempt = min(d.Attempt, 1) })},
	{Name: "stops counting", Promise: 15, receive: delivering(func(d *driver.Delivery) { d.Attempt = min(d.Attempt, 4) })},
	{Name: "counts double", Promise: 15, receive: delivering(func(d *driver.Delivery) { d.Attempt = 2*d.Attempt - 1 })},
	{Name: "counts what was only prefetched", Promise: 15, closeSub: func(ctx context.Context, s *subscriber) error {
		for { // hands out what waits
			ctx, cancel := context.WithTimeout(ctx, soon)
			n, err := s.Subscriber.Receive(ctx, make([]*driver.Delivery, 1))
			cancel()
			if n == 0 || err != nil {
				break
			}
		}
		return s.Subscriber.Close(ctx)
	}},
	{Name: "does not say that a message comes again", Promise: 15, receive: delivering(func(d *driver.Delivery) { d.Redelivered = false })},
	{Name: "counts Nack only", Promise: 15, closeSub: func(ctx context.Context, s *subscriber) error {
		for _, d := range s.unsettled() {
			m := d.Message
			m.Key = d.Queue
			_ = aside(s.c.Conn, "", m, m.ID+" again")
			_ = s.Subscriber.Settle(ctx, d, driver.Ack, 0)
		}
		return s.Subscriber.Close(ctx)
	}},

	{Name: "nacks to the exchange", Promise: 16, settle: again(func(s *subscriber, d *driver.Delivery) {
		_ = aside(s.c.Conn, d.Exchange, d.Message, d.Message.ID+" again")
	})},
	{Name: "nacks as a new message", Promise: 16, settle: again(func(s *subscriber, d *driver.Delivery) {
		m := d.Message
		m.Key = d.Queue
		_ = aside(s.c.Conn, "", m, m.ID+" again")
	})},
	{Name: "does not wait for the delay", Promise: 16, settle: settling(func(_ *driver.Outcome, delay *time.Duration) { *delay = 0 })},
	{Name: "holds up the others for the delay", Promise: 16, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if delay > 0 {
			time.AfterFunc(delay, func() { _ = s.Subscriber.Settle(context.Background(), d, o, 0) })
			return nil // and Close gives it back too early
		}
		return s.Subscriber.Settle(ctx, d, o, delay)
	}},

	{Name: "drops rejected messages", Promise: 17, settle: settling(func(o *driver.Outcome, _ *time.Duration) {
		if *o == driver.Reject {
			*o = driver.Ack
		}
	})},
	{Name: "drops dead letters that nobody takes", Promise: 17, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].BestEffortDeadLetter = true
		}
	})},
	{Name: "delivers rejected messages again", Promise: 17, settle: settling(func(o *driver.Outcome, _ *time.Duration) {
		if *o == driver.Reject {
			*o = driver.Nack
		}
	})},
	{Name: "does not say why a message died", Promise: 17, receive: delivering(func(d *driver.Delivery) { delete(d.Message.Header, "x-death") })},
	{Name: "gives another reason", Promise: 17, receive: dying(func(death map[string]any) { death["reason"] = "expired" })},
	{Name: "does not count deaths", Promise: 17, receive: dying(func(death map[string]any) { death["count"] = int64(1) })},
	{Name: "gives the count another type", Promise: 17, receive: dying(func(death map[string]any) { death["count"] = float64(1) })},
	{Name: "forgets the first death", Promise: 17, receive: delivering(func(d *driver.Delivery) { delete(d.Message.Header, "x-first-death-queue") })},
	{Name: "ignores the dead-letter key", Promise: 17, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].DeadLetterKey = ""
		}
	})},
	{Name: "ignores the dead-letter exchange", Promise: 17, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].DeadLetterExchange, t.Queues[i].DeadLetterKey = "", ""
		}
	})},
	{Name: "knows no limit of attempts", Promise: 17, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].MaxAttempts = 0
		}
	})},
	{Name: "tries once too often", Promise: 17, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			if t.Queues[i].MaxAttempts > 0 {
				t.Queues[i].MaxAttempts++
			}
		}
	})},

	{Name: "takes a message that came again for settled", Promise: 20, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if s.c.d.seen("settled " + d.Message.ID) {
			return driver.ErrSettled
		}
		return s.Subscriber.Settle(ctx, d, o, delay)
	}},
	{Name: "ends the subscription at a second settlement", Promise: 20, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		err := s.Subscriber.Settle(ctx, d, o, delay)
		if o == driver.Reject {
			_ = s.Subscriber.Close(ctx)
		}
		return err
	}},
}
