//go:build !race

package acceptance

import (
	"context"
	"runtime"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// allocated is how many allocations a message costs of n that f handles, at most
// limit or what it takes: how many share a fetch or a write depends on what else
// the machine does, so what counts is the least of some tries.
func allocated(t *testing.T, n int, limit float64, before, f func()) float64 {
	t.Helper()
	least := -1.0
	for try := 0; try < 30 && (least < 0 || least > limit); try++ {
		before()
		var from, to runtime.MemStats
		runtime.ReadMemStats(&from)
		f()
		runtime.ReadMemStats(&to)
		if per := float64(to.Mallocs-from.Mallocs) / float64(n); least < 0 || per < least {
			least = per
		}
	}
	return least
}

// TestAllocations: what a message costs on its way to a broker and back, the
// client's part included.
func TestAllocations(t *testing.T) {
	for _, c := range []struct {
		backend             string
		one, many, consumed float64
	}{
		{"amqp", 38.1, 31.3, 28.9},
		{"nats", 5.1, 6.3, 10.5},
		{"redis", 2.05, 1.1, 3.4},
	} {
		t.Run(c.backend, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context()) // a request's, as a rule
			defer cancel()
			conn, err := polymq.Open(ctx, testbroker.URL(t, c.backend), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			const queue = "allocations"
			if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: queue}}}); err != nil {
				t.Fatal(err)
			}
			p, err := conn.Publisher(ctx, "", &polymq.PublisherOptions{Window: 512})
			if err != nil {
				t.Fatal(err)
			}
			body, none := make([]byte, 256), func() {}
			one := allocated(t, 100, c.one, none, func() {
				for range 100 {
					if err := p.Publish(ctx, &polymq.Message{Key: queue, Body: body}); err != nil {
						t.Fatal(err)
					}
				}
			})
			if one > c.one {
				t.Errorf("%.2f allocations to publish one, want %.1f", one, c.one)
			}
			publish := func() {
				for range 2000 {
					if _, err := p.PublishAsync(ctx, &polymq.Message{Key: queue, Body: body}); err != nil {
						t.Fatal(err)
					}
				}
				if err := p.Flush(ctx); err != nil {
					t.Fatal(err)
				}
			}
			if many := allocated(t, 2000, c.many, none, publish); many > c.many {
				t.Errorf("%.2f allocations to publish one of many, want %.1f", many, c.many)
			}
			if _, err := conn.Purge(ctx, queue); err != nil {
				t.Fatal(err)
			}
			s, err := conn.Subscriber(ctx, queue, &polymq.SubscriberOptions{Prefetch: 256})
			if err != nil {
				t.Fatal(err)
			}
			consumed := allocated(t, 2000, c.consumed, publish, func() {
				for range 2000 {
					d, err := s.Receive(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if err := d.Ack(ctx); err != nil {
						t.Fatal(err)
					}
				}
			})
			if consumed > c.consumed {
				t.Errorf("%.2f allocations to consume one, want %.1f", consumed, c.consumed)
			}
		})
	}
}
