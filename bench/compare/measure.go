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

// A sample is one round of one contender.
type sample struct {
	value  float64 // messages a second, or of latency the median in microseconds
	p99    float64 // of latency
	allocs float64 // a message
	cpu    float64 // microseconds of this process a message
}

// A trial is what one contender does in a round.
type trial struct {
	name string
	peer bool
	run  func(ctx context.Context) (sample, error)
}

// measured runs f, which takes n messages somewhere, and returns what it cost
// this process. f may say when it was over and when it began; else that is when
// it returns, and was called.
func measured(n int, f func() (began, over time.Time, err error)) (sample, error) {
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	cpu, start := processCPU(), time.Now()
	began, over, err := f()
	if err != nil {
		return sample{}, err
	}
	end := time.Now()
	used := processCPU() - cpu
	runtime.ReadMemStats(&after)
	if began.IsZero() {
		began = start
	}
	if over.IsZero() {
		over = end
	}
	return sample{
		value:  float64(n) / over.Sub(began).Seconds(),
		allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
		cpu:    float64(used.Microseconds()) / float64(n),
	}, nil
}

func processCPU() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// publishing is a round of publishing.
func publishing(ctx context.Context, c contender, l load, n int, body []byte) (sample, error) {
	s, err := measured(n, func() (began, over time.Time, err error) {
		return time.Time{}, time.Time{}, c.publish(ctx, l, n, body)
	})
	if err != nil {
		return s, err
	}
	if err := c.purge(ctx); err != nil {
		return s, fmt.Errorf("empty the queue: %w", err)
	}
	return s, nil
}

// consuming is a round of consuming, from the first message to the last
// acknowledgement.
func consuming(ctx context.Context, c contender, n int, body []byte) (sample, error) {
	if err := c.publish(ctx, load{callers: callers, window: 1}, n, body); err != nil { // where peers are not so slow
		return sample{}, fmt.Errorf("fill the queue: %w", err)
	}
	s, err := measured(n, func() (began, over time.Time, err error) {
		left := n
		over, err = c.consume(ctx, func([]byte) bool {
			if left == n {
				began = time.Now()
			}
			left--
			return left > 0
		})
		return began, over, err
	})
	if err != nil {
		return s, err
	}
	return s, c.purge(ctx)
}

// sized is a trial of rounds that take about span, of at least atLeast messages.
func sized(ctx context.Context, name string, span time.Duration, atLeast int, round func(ctx context.Context, n int) (sample, error)) (trial, error) {
	n := atLeast
	for k := atLeast; ; k *= 4 {
		s, err := round(ctx, k)
		if err != nil {
			return trial{}, fmt.Errorf("%s: %w", name, err)
		}
		n = max(n, int(s.value*span.Seconds())/callers*callers)
		if took := float64(k) / s.value; took > span.Seconds()/4 || k > 1<<20 {
			break
		}
	}
	return trial{name: name, run: func(ctx context.Context) (sample, error) { return round(ctx, n) }}, nil
}

// enough rounds show what a slow contender does.
const enough = 3

// interleave runs the trials so many times, in an order that is rotated from
// round to round; where that takes longer than the patience, peers sit out the
// rounds after the third, and where it takes twice as long, there are no more for
// the others. The result has a list of samples for each trial.
func interleave(ctx context.Context, trials []trial, rounds int, patience time.Duration) ([][]sample, error) {
	all := make([][]sample, len(trials))
	start := time.Now()
	for r := range rounds {
		took := time.Since(start)
		if r >= enough && took > 2*patience {
			break
		}
		for i := range trials {
			k := (i + r) % len(trials)
			if trials[k].peer && r >= enough && took > patience {
				continue
			}
			s, err := trials[k].run(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", trials[k].name, err)
			}
			all[k] = append(all[k], s)
		}
	}
	return all, nil
}

// Spread is the median of rounds and what lies around it.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spread(values []float64) Spread {
	slices.SortFunc(values, cmp.Compare)
	return Spread{values[len(values)/2], values[0], values[len(values)-1]}
}
