package faulty

import (
	"context"
	"slices"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// forgetful keeps delayed messages in this process, and publishes them once.
var forgetful = instead(func(p *publisher, m driver.Message, id string) bool {
	if m.Delay == 0 {
		return false
	}
	delay := m.Delay
	m.Delay = 0
	time.AfterFunc(delay, func() { _ = aside(p.c.Conn, p.cfg.Exchange, m, id) })
	return true
})

var delayFaults = []Fault{
	{Name: "does not wait", Promise: 3, Row: "delayed", publish: changing(func(m *driver.Message, _ *string) { m.Delay = 0 })},
	{Name: "delivers the delay", Promise: 3, Row: "delayed", receive: delivering(func(d *driver.Delivery) { d.Message.Delay = time.Second })},
	{Name: "keeps the order of publishing through delays", Promise: 3, Row: "delayed", publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.each(ctx, batch, wait, func(m *driver.Message, _ *string) {
			if m.Delay > 0 && p.c.d.seen("a delay") {
				m.Delay = 24 * time.Hour
			}
		})
	}},
	{Name: "loses headers during a delay", Promise: 3, Row: "delayed-as-published", publish: changing(func(m *driver.Message, _ *string) {
		if m.Delay > 0 {
			m.Header = nil
		}
	})},
	{Name: "routes delayed messages when they are published", Promise: 3, Row: "delayed-routing", publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		t, err := p.c.Conn.Topology(ctx)
		p.Publisher.Publish(ctx, slices.DeleteFunc(slices.Clone(batch), func(b *driver.Publishing) bool {
			bound := slices.ContainsFunc(t.Bindings, func(x routing.Binding) bool { return x.Exchange == p.cfg.Exchange && x.Key == b.Message.Key })
			return err == nil && b.Message.Delay > 0 && !bound && b.Resolve(driver.ErrUnroutable)
		}), wait)
	}},
	{Name: "drops what is unroutable when it is due", Promise: 3, Row: "delayed-unroutable", publish: forgetful},
	{Name: "gives up what is refused when it is due", Promise: 3, Row: "delayed-full-target", publish: forgetful},
	{Name: "lets a full target hold up the others", Promise: 3, Row: "delayed-full-target", publish: instead(func(_ *publisher, m driver.Message, _ string) bool {
		return m.Delay > 0 && m.Key != "full"
	})},
	{Name: "drops what has no target when it is due", Promise: 3, Row: "delayed-missing-target", publish: forgetful},

	{Name: "takes delayed messages to missing exchanges", Promise: 4, Row: "delayed", publish: reporting(func(b *driver.Publishing, err error) error {
		if is(err, driver.ErrNotFound) && b.Message.Delay > 0 {
			return nil
		}
		return err
	})},

	{Name: "forgets what is delayed at a restart", Promise: 10, Row: "delayed", publish: changing(func(m *driver.Message, _ *string) { m.Transient = m.Delay > 0 })},

	{Name: "counts the time to live from publishing", Promise: 17, Row: "delayed-expires", publish: changing(func(m *driver.Message, _ *string) {
		if m.Delay > 0 && m.TTL > 0 {
			m.TTL = max(m.TTL-m.Delay, time.Millisecond)
		}
	})},
}

var redriveFaults = []Fault{
	{Name: "gives redriven messages to the exchange", Promise: 17, Row: "redrive", publisher: func(cfg *driver.PublisherConfig) { cfg.Queue = "" }},
	{Name: "keeps what was redriven", Promise: 17, Row: "redrive-some", settle: func(ctx context.Context, s *subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
		if o == driver.Ack && s.queue == "dead" {
			return nil
		}
		return s.Subscriber.Settle(ctx, d, o, delay)
	}},
	{Name: "loses what is redriven to a queue that is gone", Promise: 17, Row: "redrive-to-nowhere", publish: reporting(func(*driver.Publishing, error) error { return nil })},
}
