package main

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"time"
)

// An operation is what one cell of the tables measures.
type operation string

const (
	publishOne       operation = "publish-1"      // one caller, publish and wait
	publishPipelined operation = "publish-pipe"   // 1024 outstanding
	publishCallers   operation = "publish-64"     // 64 callers, each publish and wait
	consumeAck       operation = "consume"        // prefetch 256, each message acknowledged
	memoryLoop       operation = "publish-to-ack" // publish, receive and ack, one after another
)

// A contender does the operations on one backend. Setup has been done when it
// is handed out; its queue is empty but for what the harness put there.
type contender interface {
	// publish sends n messages of the body by the operation and returns when
	// all are confirmed.
	publish(ctx context.Context, op operation, n int, body []byte) error
	// consume takes n messages, acknowledging each, and returns when the
	// acknowledgements are sent.
	consume(ctx context.Context, n int) error
	// purge empties the queue.
	purge(ctx context.Context) error
	close()
}

// A sample is one round of one contender.
type sample struct {
	rate   float64 // messages a second
	allocs float64 // a message
	cpu    float64 // microseconds of this process a message
}

// round measures n messages.
func round(ctx context.Context, c contender, op operation, n int, body []byte) (sample, error) {
	run := func() error { return c.publish(ctx, op, n, body) }
	if op == consumeAck {
		if err := c.publish(ctx, publishPipelined, n, body); err != nil {
			return sample{}, fmt.Errorf("fill the queue: %w", err)
		}
		run = func() error { return c.consume(ctx, n) }
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := processCPU(), time.Now()
	if err := run(); err != nil {
		return sample{}, err
	}
	took := time.Since(start)
	used := processCPU() - cpu
	runtime.ReadMemStats(&after)
	if op != memoryLoop {
		if err := c.purge(ctx); err != nil {
			return sample{}, fmt.Errorf("empty the queue: %w", err)
		}
	}
	return sample{
		rate:   float64(n) / took.Seconds(),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		cpu:    float64(used.Microseconds()) / float64(n),
	}, nil
}

func processCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// calibrate finds how many messages take about d. To consume it is at least
// 8192, so that what it costs to begin does not count.
func calibrate(ctx context.Context, c contender, op operation, body []byte, d time.Duration) (int, error) {
	first := 64
	if op == consumeAck {
		first = 8192
	}
	for n := first; ; n *= 4 {
		s, err := round(ctx, c, op, n, body)
		if err != nil {
			return 0, err
		}
		if took := float64(n) / s.rate; took > d.Seconds()/8 || n > 1<<20 {
			return max(first, int(s.rate*d.Seconds())/64*64), nil
		}
	}
}

func median(values []float64) (mid, low, high float64) {
	slices.SortFunc(values, cmp.Compare)
	return values[len(values)/2], values[0], values[len(values)-1]
}
