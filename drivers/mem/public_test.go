//go:build !race

package mem_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// one is publish, receive and ack of one message, as an application sees it.
func one(b testing.TB) func() {
	ctx := b.Context()
	name := fmt.Sprintf("one-%d", namespaces.Add(1))
	b.Cleanup(func() { mem.Remove(name) })
	c, err := polymq.Open(ctx, "mem://"+name, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close(context.Background()) })
	if err := c.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q"}}}); err != nil {
		b.Fatal(err)
	}
	p, err := c.Publisher(ctx, "", nil)
	if err != nil {
		b.Fatal(err)
	}
	s, err := c.Subscriber(ctx, "q", nil)
	if err != nil {
		b.Fatal(err)
	}
	body := make([]byte, 256)
	return func() {
		if err := p.Publish(ctx, &polymq.Message{Key: "q", Body: body}); err != nil {
			b.Fatal(err)
		}
		d, err := s.Receive(ctx)
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Ack(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkOne(b *testing.B) {
	round := one(b)
	b.ReportAllocs()
	for b.Loop() {
		round()
	}
}

// TestPublicAllocations: the delivery, and what TestAllocations allows; the
// message does not leave the caller's stack. IDs share the memory of 39.
func TestPublicAllocations(t *testing.T) {
	round := one(t)
	if n := testing.AllocsPerRun(500, round); n > 2 {
		t.Errorf("%.2f allocations to publish, receive and acknowledge, want at most 2", n)
	}
}
