package faulty

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// queues is a declare hook that declares other queues.
func queues(change func(q *routing.Queue)) func(context.Context, driver.Conn, routing.Topology) error {
	return declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			change(&t.Queues[i])
		}
	})
}

// besides is a publish hook that does something more with each message.
func besides(more func(p *publisher, m driver.Message, id string)) func(context.Context, *publisher, []*driver.Publishing, bool) {
	return func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		for _, b := range batch {
			more(p, *b.Message, b.ID)
		}
		p.Publisher.Publish(ctx, batch, wait)
	}
}

// instead is a publish hook that does something else with some messages, which
// it takes for done.
func instead(other func(p *publisher, m driver.Message, id string) bool) func(context.Context, *publisher, []*driver.Publishing, bool) {
	return func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		var rest []*driver.Publishing
		for _, b := range batch {
			if other(p, *b.Message, b.ID) {
				b.Resolve(nil)
			} else {
				rest = append(rest, b)
			}
		}
		p.Publisher.Publish(ctx, rest, wait)
	}
}

var expiryFaults = []Fault{
	{Name: "ignores a message's time to live", Promise: 17, Row: "expired-message", publish: changing(func(m *driver.Message, _ *string) { m.TTL = 0 })},
	{Name: "delivers without the time to live", Promise: 17, Row: "expired-message", receive: delivering(func(d *driver.Delivery) { d.Message.TTL = 0 })},
	{Name: "ignores a queue's time to live", Promise: 17, Row: "expired-queue", declare: queues(func(q *routing.Queue) { q.TTL = 0 })},
	{Name: "goes by the longer time to live", Promise: 17, Row: "expired-least", declare: queues(func(q *routing.Queue) { q.TTL = 0 }),
		publish: changing(func(m *driver.Message, _ *string) { m.TTL = max(m.TTL, time.Hour) })},
	{Name: "lets messages expire behind the head", Promise: 17, Row: "expired-at-the-head", publish: instead(func(p *publisher, m driver.Message, id string) bool {
		if m.TTL == 0 {
			return false
		}
		time.AfterFunc(m.TTL, func() {
			m.Key, m.TTL = "dead", 0
			_ = aside(p.c.Conn, "", m, id)
		})
		return true
	})},
	{Name: "keeps the time to live of the dead", Promise: 17, Row: "expired-dead-letter", receive: delivering(func(d *driver.Delivery) {
		if d.Message.Header["x-death"] != nil {
			d.Message.TTL = time.Minute
		}
	})},
	{Name: "does not say which time to live it was", Promise: 17, Row: "expired-dead-letter", receive: dying(func(death map[string]any) { delete(death, "original-expiration") })},
	{Name: "calls what expired rejected", Promise: 17, Row: "expired-dead-letter", receive: dying(func(death map[string]any) { death["reason"] = "rejected" })},
	{Name: "lets what is held expire", Promise: 17, Row: "held-does-not-expire", receive: func(ctx context.Context, s *subscriber, buf []*driver.Delivery) (int, error) {
		n, err := s.Subscriber.Receive(ctx, buf)
		for _, d := range buf[:n] {
			if d.Message.TTL > 0 {
				time.AfterFunc(d.Message.TTL, func() { _ = s.Subscriber.Settle(context.Background(), d, driver.Reject, 0) })
			}
		}
		return n, err
	}},
	{Name: "gives out again what expired", Promise: 17, Row: "expired-given-back", settle: again(func(s *subscriber, d *driver.Delivery) {
		m := d.Message
		m.Key, m.TTL = d.Queue, 0
		_ = aside(s.c.Conn, "", m, m.ID+" again")
	})},
	{Name: "sends what expires round and round", Promise: 17, Row: "expired-cycle", publish: besides(func(p *publisher, m driver.Message, id string) {
		if m.TTL > 0 {
			time.AfterFunc(2*m.TTL, func() {
				m.TTL = 0
				_ = aside(p.c.Conn, p.cfg.Exchange, m, id+" again")
			})
		}
	})},
	{Name: "looks for circles of one only", Promise: 17, Row: "cycle-of-two", publish: besides(func(p *publisher, m driver.Message, id string) {
		if m.TTL > 0 {
			time.AfterFunc(m.TTL*3/2, func() {
				m.TTL = 0
				_ = aside(p.c.Conn, p.cfg.Exchange, m, id+" again")
			})
		}
	})},
}
