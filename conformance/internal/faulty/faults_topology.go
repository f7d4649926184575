package faulty

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func is(err, target error) bool { return errors.Is(err, target) }

// declaring is a declare hook that declares something else.
func declaring(change func(t *routing.Topology)) func(context.Context, driver.Conn, routing.Topology) error {
	return func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		t = routing.Topology{Exchanges: slices.Clone(t.Exchanges), Queues: slices.Clone(t.Queues), Bindings: slices.Clone(t.Bindings)}
		change(&t)
		return c.Declare(ctx, t)
	}
}

// bindings changes each binding of a topology.
func bindings(change func(b *routing.Binding)) func(t *routing.Topology) {
	return func(t *routing.Topology) {
		for i := range t.Bindings {
			change(&t.Bindings[i])
		}
	}
}

// soon is how late the late faults are.
const soon = 30 * time.Millisecond

func later(f func(ctx context.Context)) error {
	time.AfterFunc(soon, func() { f(context.Background()) })
	return nil
}

var topologyFaults = []Fault{
	{Name: "ignores conflicts", Promise: 8, declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		if err := c.Declare(ctx, t); !is(err, driver.ErrConflict) {
			return err
		}
		return nil
	}},
	{Name: "does not name the field", Promise: 8, declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		if err := c.Declare(ctx, t); !is(err, driver.ErrConflict) {
			return err
		}
		return driver.ErrConflict
	}},
	{Name: "refuses the same again", Promise: 8, declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		if len(t.Exchanges) > 0 && c.Verify(ctx, t) == nil {
			return driver.ErrConflict
		}
		return c.Declare(ctx, t)
	}},
	{Name: "declares what it should verify", Promise: 8, verify: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		return c.Declare(ctx, t)
	}},
	{Name: "verifies nothing", Promise: 8, verify: func(context.Context, driver.Conn, routing.Topology) error { return nil }},
	{Name: "does not verify bindings", Promise: 8, verify: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		t.Bindings = nil
		return c.Verify(ctx, t)
	}},
	{Name: "binds to what is missing", Promise: 8, bind: func(ctx context.Context, c driver.Conn, bs []routing.Binding) error {
		if err := c.Bind(ctx, bs); !is(err, driver.ErrNotFound) {
			return err
		}
		return nil
	}},
	{Name: "misses what is not there to remove", Promise: 8, deleteQueue: func(ctx context.Context, c driver.Conn, name string, o driver.DeleteOptions) error {
		if err := c.Verify(ctx, routing.Topology{Queues: []routing.Queue{{Name: name}}}); is(err, driver.ErrNotFound) {
			return err
		}
		return c.DeleteQueue(ctx, name, o)
	}},
	{Name: "does not tell bindings' arguments apart", Promise: 8, unbind: func(ctx context.Context, c driver.Conn, bs []routing.Binding) error {
		t, err := c.Topology(ctx)
		if err != nil {
			return err
		}
		var all []routing.Binding
		for _, b := range t.Bindings {
			if slices.ContainsFunc(bs, func(o routing.Binding) bool {
				return o.Exchange == b.Exchange && o.Queue == b.Queue && o.ToExchange == b.ToExchange && o.Key == b.Key
			}) {
				all = append(all, b)
			}
		}
		return c.Unbind(ctx, all)
	}},
	{Name: "reads a part of the topology back", Promise: 8, topology: func(t routing.Topology) routing.Topology {
		t.Bindings = slices.DeleteFunc(t.Bindings, func(b routing.Binding) bool { return b.ToExchange != "" })
		return t
	}},
	{Name: "reads arguments back in other types", Promise: 8, topology: func(t routing.Topology) routing.Topology {
		for i, b := range t.Bindings {
			for name, v := range b.Args {
				if n, ok := v.(int64); ok {
					t.Bindings[i].Args[name] = float64(n)
				}
			}
		}
		return t
	}},

	{Name: "binds late", Promise: 9, bind: func(_ context.Context, c driver.Conn, bs []routing.Binding) error {
		return later(func(ctx context.Context) { _ = c.Bind(ctx, bs) })
	}},
	{Name: "declares bindings late", Promise: 9, declare: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		bs := t.Bindings
		t.Bindings = nil
		if err := c.Declare(ctx, t); err != nil {
			return err
		}
		return later(func(ctx context.Context) { _ = c.Bind(ctx, bs) })
	}},
	{Name: "unbinds late", Promise: 9, unbind: func(_ context.Context, c driver.Conn, bs []routing.Binding) error {
		return later(func(ctx context.Context) { _ = c.Unbind(ctx, bs) })
	}},
	{Name: "does not unbind", Promise: 9, unbind: func(context.Context, driver.Conn, []routing.Binding) error { return nil }},
	{Name: "unbinds late once in a while", Promise: 9, unbind: func(ctx context.Context, c driver.Conn, bs []routing.Binding) error {
		if time.Now().UnixNano()/1000%20 != 0 {
			return c.Unbind(ctx, bs)
		}
		return later(func(ctx context.Context) { _ = c.Unbind(ctx, bs) })
	}},
	{Name: "does not delete queues", Promise: 9, deleteQueue: func(context.Context, driver.Conn, string, driver.DeleteOptions) error { return nil }},
	{Name: "deletes exchanges late", Promise: 9, deleteExchange: func(_ context.Context, c driver.Conn, name string, o driver.DeleteOptions) error {
		return later(func(ctx context.Context) { _ = c.DeleteExchange(ctx, name, o) })
	}},
	{Name: "deletes queues in use", Promise: 9, deleteQueue: func(ctx context.Context, c driver.Conn, name string, _ driver.DeleteOptions) error {
		return c.DeleteQueue(ctx, name, driver.DeleteOptions{})
	}},
	{Name: "keeps a deleted queue's bindings", Promise: 9, deleteQueue: func(ctx context.Context, c driver.Conn, name string, o driver.DeleteOptions) error {
		_, err := c.Purge(ctx, name)
		return err
	}},

	{Name: "forgets queues at a restart", Promise: 10, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].Transient = true
		}
	}), verify: func(ctx context.Context, c driver.Conn, t routing.Topology) error {
		return declaring(func(t *routing.Topology) {
			for i := range t.Queues {
				t.Queues[i].Transient = true
			}
		})(ctx, c, t)
	}},
	{Name: "forgets messages at a restart", Promise: 10, publish: changing(func(m *driver.Message, _ *string) { m.Transient = true })},

	{Name: "takes dots for underscores", Promise: 11, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].Name = folded(t.Queues[i].Name)
		}
		bindings(func(b *routing.Binding) { b.Queue = folded(b.Queue) })(t)
	}), publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.each(ctx, batch, wait, func(m *driver.Message, _ *string) {
			if p.cfg.Exchange == "" {
				m.Key = folded(m.Key)
			}
		})
	}, subscriber: func(cfg *driver.SubscriberConfig) { cfg.Queue = folded(cfg.Queue) }},
	{Name: "reads escaped names back", Promise: 11, topology: func(t routing.Topology) routing.Topology {
		for i := range t.Queues {
			t.Queues[i].Name = strings.ReplaceAll(t.Queues[i].Name, "%", "%25")
		}
		return t
	}},
	{Name: "cuts long names", Promise: 11, declare: declaring(func(t *routing.Topology) {
		for i := range t.Queues {
			t.Queues[i].Name = cut(t.Queues[i].Name)
		}
	}), publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.each(ctx, batch, wait, func(m *driver.Message, _ *string) {
			if p.cfg.Exchange == "" {
				m.Key = cut(m.Key)
			}
		})
	}, subscriber: func(cfg *driver.SubscriberConfig) { cfg.Queue = cut(cfg.Queue) }},

	{Name: "wants a word for #", Promise: 12, declare: declaring(bindings(func(b *routing.Binding) {
		if strings.HasSuffix(b.Key, ".#") {
			b.Key = strings.TrimSuffix(b.Key, "#") + "*.#"
		}
	}))},
	{Name: "compares all for any", Promise: 12, declare: declaring(bindings(func(b *routing.Binding) { matchAll(b) }))},
	{Name: "compares headers as text", Promise: 12, declare: declaring(bindings(func(b *routing.Binding) {
		if v, ok := b.Args["v"]; ok && v == int64(1) {
			b.Args = map[string]any{"v": "1"}
		}
	})), publish: changing(func(m *driver.Message, _ *string) {
		if m.Header["v"] == int64(1) {
			m.Header = map[string]any{"v": "1"}
		}
	})},
	{Name: "ignores CC", Promise: 12, publish: changing(func(m *driver.Message, _ *string) {
		h := map[string]any{}
		for name, v := range m.Header {
			if name != "CC" {
				h[name] = v
			}
		}
		m.Header = h
	})},
	{Name: "delivers BCC", Promise: 12, receive: delivering(func(d *driver.Delivery) {
		if _, there := d.Message.Header["CC"]; there {
			d.Message.Header["BCC"] = []any{"r"}
		}
	})},
	{Name: "ignores alternates", Promise: 12, declare: declaring(func(t *routing.Topology) {
		for i := range t.Exchanges {
			t.Exchanges[i].Alternate = ""
		}
	})},
	{Name: "does not bind exchanges", Promise: 12, declare: declaring(func(t *routing.Topology) {
		t.Bindings = slices.DeleteFunc(t.Bindings, func(b routing.Binding) bool { return b.ToExchange != "" })
	})},
	{Name: "takes a consistent hash for a fanout", Promise: 12, Row: "consistent-hash", declare: declaring(func(t *routing.Topology) {
		for i := range t.Exchanges {
			t.Exchanges[i].Kind = routing.Fanout
		}
	})},
	{Name: "ignores weights", Promise: 12, Row: "consistent-hash", declare: declaring(bindings(func(b *routing.Binding) { b.Key = "1" }))},
	{Name: "deals in turn", Promise: 12, Row: "consistent-hash", publish: func(ctx context.Context, p *publisher, batch []*driver.Publishing, wait bool) {
		p.each(ctx, batch, wait, func(m *driver.Message, _ *string) {
			if p.cfg.Exchange != "" {
				m.Key += strconv.FormatInt(p.count.Add(1), 10)
			}
		})
	}},
}

func folded(name string) string { return strings.ReplaceAll(name, ".", "_") }

func cut(name string) string { return name[:min(len(name), 254)] }

func matchAll(b *routing.Binding) {
	if b.Args["x-match"] != "any" {
		return
	}
	args := map[string]any{}
	for name, v := range b.Args {
		args[name] = v
	}
	args["x-match"] = "all"
	b.Args = args
}
