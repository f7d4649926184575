package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// growBindings measures, for so many bindings of a topic exchange to ten queues:
// how long it takes to declare them all, how long to bind one more, and how long
// until another connection's publish goes by it.
func growBindings(ctx context.Context, g *grower) error {
	xs := []int{1, 10, 100, 1_000, 10_000, 100_000}
	binds, inForce := map[int][]float64{}, map[int][]float64{}
	err := g.curve(ctx, "declare all", 1, xs, func(ctx context.Context, x int) (float64, error) {
		h := &grower{r: g.r, b: g.b, chart: g.chart}
		defer h.close()
		conn, err := h.open(ctx)
		if err != nil {
			return 0, err
		}
		other, err := h.open(ctx)
		if err != nil {
			return 0, err
		}
		exchange := "growth_bindings_" + strconv.Itoa(x)
		t := routing.Topology{Exchanges: []routing.Exchange{{Name: exchange, Kind: routing.Topic}}}
		queues := many(exchange+"_", 10)
		for _, q := range queues {
			t.Queues = append(t.Queues, routing.Queue{Name: q})
		}
		// The queues are there, so that their making is not measured.
		if err := h.declare(ctx, conn, t); err != nil {
			return 0, err
		}
		for i := range x {
			t.Bindings = append(t.Bindings, routing.Binding{Exchange: exchange, Queue: queues[i%len(queues)], Key: "tenant" + strconv.Itoa(i) + ".*.paid"})
		}
		start := time.Now()
		if err := conn.Declare(ctx, t); err != nil {
			return 0, err
		}
		took := milliseconds(time.Since(start))
		pub, err := other.Publisher(ctx, exchange, nil)
		if err != nil {
			return 0, err
		}
		for i := range 2 * growthRounds {
			b := routing.Binding{Exchange: exchange, Queue: queues[0], Key: "grown" + strconv.Itoa(i)}
			bind, force, err := change(ctx, conn, pub, b)
			if err != nil {
				return 0, err
			}
			binds[x], inForce[x] = append(binds[x], bind), append(inForce[x], force)
			if err := conn.Unbind(ctx, b); err != nil {
				return 0, err
			}
		}
		return took, nil
	})
	if err != nil {
		return err
	}
	for _, c := range []struct {
		of string
		by map[int][]float64
	}{{"bind one", binds}, {"in force", inForce}} {
		err := g.curve(ctx, c.of, 2*growthRounds, measuredOf(xs, c.by), func(_ context.Context, x int) (float64, error) {
			v := c.by[x][0]
			c.by[x] = c.by[x][1:]
			return v, nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// change binds while another connection publishes, and returns when the call had
// returned and when the first publish had gone by it.
func change(ctx context.Context, conn *polymq.Conn, pub *polymq.Publisher, b routing.Binding) (bind, force float64, err error) {
	m := &polymq.Message{Key: b.Key}
	// Once beforehand, so that the connection has the table.
	if err := pub.Publish(ctx, m); !errors.Is(err, polymq.ErrUnroutable) {
		return 0, 0, fmt.Errorf("before the binding: %v", err)
	}
	start := time.Now()
	done := make(chan error, 1)
	go func() {
		err := conn.Bind(ctx, b)
		bind = milliseconds(time.Since(start))
		done <- err
	}()
	for {
		err := pub.Publish(ctx, m)
		if err == nil {
			force = milliseconds(time.Since(start))
			return bind, force, <-done
		}
		if !errors.Is(err, polymq.ErrUnroutable) {
			return 0, 0, errors.Join(err, <-done)
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }

func growIdle(ctx context.Context, g *grower) error {
	conn, err := g.open(ctx)
	if err != nil {
		return err
	}
	queues := many("growth_idle", 1000)
	var t routing.Topology
	for _, q := range queues {
		t.Queues = append(t.Queues, routing.Queue{Name: q})
	}
	if err := g.declare(ctx, conn, t); err != nil {
		return err
	}
	return g.curve(ctx, "", 1, []int{10, 100, 1000}, func(ctx context.Context, x int) (float64, error) {
		before := inUse()
		var subs []*polymq.Subscriber
		for _, q := range queues[:x] {
			s, err := conn.Subscriber(ctx, q, &polymq.SubscriberOptions{Prefetch: prefetch})
			if err != nil {
				return 0, err
			}
			subs = append(subs, s)
		}
		each := (inUse() - before) / float64(x) / 1024
		for _, s := range subs {
			if err := s.Close(ctx); err != nil {
				return 0, err
			}
		}
		return each, nil
	})
}

// inUse is the live heap and the goroutines' stacks.
func inUse() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc + m.StackInuse)
}
