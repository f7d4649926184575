package faulty

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver"
)

// delivering is a receive hook that changes deliveries.
func delivering(change func(d *driver.Delivery)) func(context.Context, *subscriber, []*driver.Delivery) (int, error) {
	return func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf)
		for _, d := range buf[:n] {
			change(d)
		}
		return n, err
	}
}

var consumeFaults = []Fault{
	{Name: "acknowledges what it hands out", Promise: 13, receive: func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf)
		for _, d := range buf[:n] {
			_ = s.Subscriber.Settle(ctx, d, driver.Ack, 0)
		}
		return n, err
	}, settle: func(context.Context, *subscriber, *driver.Delivery, driver.Outcome, time.Duration) error { return nil }},
	{Name: "acknowledges what Close gives back", Promise: 13, closeSub: func(ctx context.Context, s *subscriber) error {
		for _, d := range s.unsettled() {
			_ = s.Subscriber.Settle(ctx, d, driver.Ack, 0)
		}
		return s.Subscriber.Close(ctx)
	}},
	{Name: "acknowledges all that came before", Promise: 13, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		for _, other := range s.unsettled() {
			if o == driver.Ack && string(other.Message.Body) < string(d.Message.Body) {
				_ = s.Subscriber.Settle(ctx, other, driver.Ack, 0)
			}
		}
		return s.Subscriber.Settle(ctx, d, o, delay)
	}},
	{Name: "forgets acknowledgements", Promise: 13, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if o == driver.Ack && s.nth()%7 == 0 {
			return nil
		}
		return s.Subscriber.Settle(ctx, d, o, delay)
	}},
	{Name: "drops what comes when nobody waits", Promise: 13, receive: func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf[:1])
		if n == 1 && s.nth()%9 == 0 {
			_ = s.Subscriber.Settle(ctx, buf[0], driver.Ack, 0)
			return s.Subscriber.Receive(ctx, buf[:1])
		}
		return n, err
	}},
	{Name: "empties its queues at Close", Promise: 13, closeConn: func(ctx context.Context, c driver.Conn) error {
		if t, err := c.Topology(ctx); err == nil {
			for _, q := range t.Queues {
				_, _ = c.Purge(ctx, q.Name)
			}
		}
		return c.Close(ctx)
	}},

	{Name: "gives what is held to others too", Promise: 14, receive: func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf)
		for _, d := range buf[:n] {
			if _, copied := d.Message.Header["copied"]; copied {
				continue
			}
			m := d.Message
			m.Header, m.Key = map[string]any{"copied": true}, d.Queue
			_ = aside(s.c.Conn, "", m, m.ID+" copied")
		}
		return n, err
	}},
	{Name: "settles lost holds", Promise: 14, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if err := s.Subscriber.Settle(ctx, d, o, delay); !is(err, driver.ErrLost) {
			return err
		}
		return nil
	}},
	{Name: "settles another's hold", Promise: 14, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		err := s.Subscriber.Settle(ctx, d, o, delay)
		if is(err, driver.ErrLost) {
			for _, other := range s.c.d.subscribers() {
				for _, held := range other.unsettled() {
					if held.Message.ID == d.Message.ID {
						_ = other.Subscriber.Settle(ctx, held, o, delay)
					}
				}
			}
		}
		return err
	}},
	{Name: "lets holds end", Promise: 14, receive: func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf)
		for _, d := range buf[:n] {
			time.AfterFunc(soon, func() { _ = s.Subscriber.Settle(context.Background(), d, driver.Nack, 0) })
		}
		return n, err
	}},

	{Name: "holds more than its prefetch", Promise: 18, subscriber: func(cfg *driver.SubscriberConfig) { cfg.Prefetch++ }},
	{Name: "ignores its prefetch", Promise: 18, subscriber: func(cfg *driver.SubscriberConfig) { cfg.Prefetch = 1000 }},
	{Name: "makes no room for the next message", Promise: 18, settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if o == driver.Reject {
			return nil
		}
		return s.Subscriber.Settle(ctx, d, o, delay)
	}},

	{Name: "keeps what Close should give back", Promise: 19, closeSub: func(context.Context, *subscriber) error { return nil }},
}
