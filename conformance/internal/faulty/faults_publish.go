package faulty

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// changing is a publish hook that sends changed messages.
func changing(change func(m *driver.Message, id *string)) func(context.Context, *publisher, []*driver.Publishing, bool) {
	return func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.each(ctx, batch, wait, change)
	}
}

// reporting is a publish hook that changes outcomes.
func reporting(change func(b *driver.Publishing, err error) error) func(context.Context, *publisher, []*driver.Publishing, bool) {
	return func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.outcomes(ctx, batch, wait, change)
	}
}

var publishFaults = []Fault{
	{Name: "confirms before it stores", Promise: 1, publish: func(_ context.Context, p *publisher, batch []*driver.Publishing, _ bool) {
		for _, b := range batch {
			m, id := *b.Message, b.ID
			b.Resolve(nil)
			time.AfterFunc(3*time.Millisecond, func() { _ = aside(p.c.Conn, p.cfg.Exchange, m, id) })
		}
	}},
	{Name: "drops every tenth message", Promise: 1, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.Publisher.Publish(ctx, slices.DeleteFunc(slices.Clone(batch), func(b *driver.Publishing) bool {
			return p.count.Add(1)%10 == 0 && b.Resolve(nil)
		}), wait)
	}},
	{Name: "cuts long bodies", Promise: 1, publish: changing(func(m *driver.Message, _ *string) {
		m.Body = m.Body[:min(len(m.Body), 64<<10)]
	})},
	{Name: "ends bodies at a zero byte", Promise: 1, publish: changing(func(m *driver.Message, _ *string) {
		if i := slices.Index(m.Body, 0); i >= 0 {
			m.Body = m.Body[:i]
		}
	})},
	{Name: "makes text of headers", Promise: 1, publish: changing(func(m *driver.Message, _ *string) {
		h := map[string]any{}
		for name, v := range m.Header {
			if n, ok := v.(int64); ok {
				v = strconv.FormatInt(n, 10)
			}
			h[name] = v
		}
		if m.Header != nil {
			m.Header = h
		}
	})},
	{Name: "delivers headers in their own types", Promise: 1, receive: delivering(func(d *driver.Delivery) {
		for name, v := range d.Message.Header {
			if f, ok := v.(float64); ok && f == float64(int64(f)) {
				d.Message.Header[name] = int64(f)
			}
		}
	})},
	{Name: "loses the routing key", Promise: 1, receive: delivering(func(d *driver.Delivery) { d.Message.Key = "" })},
	{Name: "loses a property", Promise: 1, publish: changing(func(m *driver.Message, _ *string) { m.CorrelationID = "" })},
	{Name: "loses the time", Promise: 1, receive: delivering(func(d *driver.Delivery) { d.Message.Time = d.Message.Time.Local() })},
	{Name: "does not say from where", Promise: 1, receive: delivering(func(d *driver.Delivery) { d.Exchange = "" })},
	{Name: "gives messages IDs of its own", Promise: 1, publish: changing(func(_ *driver.Message, id *string) { *id += "'" })},
	{Name: "makes headers where there are none", Promise: 1, receive: delivering(func(d *driver.Delivery) {
		if d.Message.Header == nil {
			d.Message.Header = map[string]any{}
		}
	})},

	{Name: "reports unknown as rejected", Promise: 2, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if p.c.l.open() {
			p.Publisher.Publish(ctx, batch, wait)
			return
		}
		for _, b := range batch {
			b.Resolve(driver.ErrRejected)
		}
	}},
	{Name: "reports unknown as stored", Promise: 2, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if p.c.l.open() {
			p.Publisher.Publish(ctx, batch, wait)
			return
		}
		for _, b := range batch {
			b.Resolve(nil)
		}
	}},
	{Name: "does not deduplicate", Promise: 2, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.each(ctx, batch, wait, func(_ *driver.Message, id *string) {
			*id += strconv.FormatInt(p.count.Add(1), 10) + fmt.Sprintf("%p", p)
		})
	}},
	{Name: "deduplicates across queues", Promise: 2, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.Publisher.Publish(ctx, slices.DeleteFunc(slices.Clone(batch), func(b *driver.Publishing) bool {
			return p.c.d.seen(b.ID) && b.Resolve(nil)
		}), wait)
	}},

	{Name: "ignores unroutable messages", Promise: 3, publisher: func(cfg *driver.PublisherConfig) { cfg.DropUnroutable = true }},
	{Name: "always hears of unroutable messages", Promise: 3, publisher: func(cfg *driver.PublisherConfig) { cfg.DropUnroutable = false }},
	{Name: "hears of another message", Promise: 3, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if len(batch) < 2 {
			p.Publisher.Publish(ctx, batch, wait)
			return
		}
		out := make([]*driver.Publishing, len(batch))
		for i, b := range batch {
			out[i] = &driver.Publishing{Message: b.Message, ID: b.ID, Owner: outcome{batch[(i+1)%len(batch)], nil}}
		}
		p.Publisher.Publish(ctx, out, wait)
	}},
	{Name: "drops unroutable messages sent without waiting", Promise: 3, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if wait {
			p.Publisher.Publish(ctx, batch, wait)
			return
		}
		p.outcomes(ctx, batch, wait, func(*driver.Publishing, error) error { return nil })
	}},

	{Name: "makes missing exchanges", Promise: 4, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if p.cfg.Exchange != "" {
			x := routing.Exchange{Name: p.cfg.Exchange, Kind: routing.Direct}
			_ = p.c.Conn.Declare(ctx, routing.Topology{Exchanges: []routing.Exchange{x}})
		}
		p.Publisher.Publish(ctx, batch, wait)
	}},
	{Name: "takes a missing exchange for one without bindings", Promise: 4, publish: reporting(func(_ *driver.Publishing, err error) error {
		if is(err, driver.ErrNotFound) {
			return driver.ErrUnroutable
		}
		return err
	})},

	{Name: "stores a copy too many", Promise: 5, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		for _, b := range batch {
			_ = aside(p.c.Conn, p.cfg.Exchange, *b.Message, b.ID+" again")
		}
		p.Publisher.Publish(ctx, batch, wait)
	}},
	{Name: "stores a copy for each key", Promise: 5, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		for _, b := range batch {
			keys, _ := b.Message.Header["CC"].([]any)
			for i, key := range keys {
				m := *b.Message
				m.Header, m.Key = nil, key.(string)
				_ = aside(p.c.Conn, p.cfg.Exchange, m, b.ID+" for key "+strconv.Itoa(i))
			}
		}
		p.Publisher.Publish(ctx, batch, wait)
	}},

	{Name: "reverses batches", Promise: 6, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		batch = slices.Clone(batch)
		slices.Reverse(batch)
		p.Publisher.Publish(ctx, batch, wait)
	}},
	{Name: "lets a message overtake", Promise: 6, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		if n := p.count.Add(1); n%50 != 0 || wait {
			p.Publisher.Publish(ctx, batch, wait)
			return
		}
		batch = slices.Clone(batch)
		time.AfterFunc(time.Millisecond, func() { p.Publisher.Publish(context.Background(), batch, false) })
	}},
	{Name: "says wrongly where redelivered messages stand", Promise: 6, features: func(f *driver.Features) {
		f.Requeue = map[string]string{"first": "last", "last": "first"}[f.Requeue]
	}},

	{Name: "forgets an outcome", Promise: 7, publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.Publisher.Publish(ctx, slices.DeleteFunc(slices.Clone(batch), func(*driver.Publishing) bool { return p.count.Add(1)%50 == 0 }), wait)
	}},
}
