package emulate

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// manyBindings is an exchange with so many to ten queues.
func manyBindings(n int) routing.Topology {
	want := routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}}}
	for i := range 10 {
		want.Queues = append(want.Queues, routing.Queue{Name: fmt.Sprint("q", i)})
	}
	for i := range n {
		want.Bindings = append(want.Bindings, routing.Binding{Exchange: "x", Queue: fmt.Sprint("q", i%10), Key: fmt.Sprintf("tenant%d.*.paid", i)})
	}
	return want
}

// TestGrowth: what a binding costs must not grow with how many there are. Memory
// is counted, as it tells without a clock what is made again and again.
func TestGrowth(t *testing.T) {
	const few, many = 2 * MaxElements, 20 * MaxElements
	costs := map[string]map[int]float64{}
	for _, n := range []int{few, many} {
		b := newBench(t)
		defer b.close()
		b.f.deaf = func() bool { return true } // so that nothing is done beside
		want := manyBindings(n)
		for _, step := range []struct {
			what string
			do   func(ctx context.Context) error
		}{
			{"declare", func(ctx context.Context) error { return b.c.Declare(ctx, want) }},
			{"declare again", func(ctx context.Context) error { return b.c.Declare(ctx, want) }},
			{"verify", func(ctx context.Context) error { return b.c.Verify(ctx, want) }},
			{"unbind", func(ctx context.Context) error { return b.c.Unbind(ctx, want.Bindings) }},
			{"bind", func(ctx context.Context) error { return b.c.Bind(ctx, want.Bindings) }},
			{"delete", func(ctx context.Context) error { return b.c.DeleteExchange(ctx, "x", driver.DeleteOptions{}) }},
		} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := step.do(t.Context()); err != nil {
				t.Fatalf("%s: %v", step.what, err)
			}
			runtime.ReadMemStats(&after)
			if costs[step.what] == nil {
				costs[step.what] = map[int]float64{}
			}
			costs[step.what][n] = float64(after.TotalAlloc-before.TotalAlloc) / float64(n)
		}
	}
	for what, c := range costs {
		t.Logf("%s: %.0f bytes a binding of %d, %.0f of %d", what, c[few], few, c[many], many)
		if c[many] > 1.6*c[few] {
			t.Errorf("%s: %.0f bytes a binding of %d, but %.0f of %d", what, c[few], few, c[many], many)
		}
	}
}

// TestHeardBetweenSteps: where the copy took in some steps of a change that is
// under way, it takes in the others when that is done.
func TestHeardBetweenSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		c := b.c.(*conn)
		steps := 0
		b.f.trouble = func(ctx context.Context, call string, after bool) error {
			if call != "apply" || !after {
				return nil
			}
			if steps++; steps == 2 {
				if _, err := c.refresh(ctx); err != nil {
					t.Error(err)
				}
			}
			return nil
		}
		b.f.deaf = func() bool { return true }
		want := manyBindings(5 * MaxElements)
		b.declare(want)
		if steps < 5 {
			t.Fatalf("%d steps", steps)
		}
		st := c.topo.current()
		if st.version != b.w.version {
			t.Errorf("the copy is at %v, the broker at %v", st.version, b.w.version)
		}
		for _, at := range []int{0, 2 * MaxElements, len(want.Bindings) - 1} {
			if !st.table.Has(want.Bindings[at]) {
				t.Errorf("the binding %d is not in the table", at)
			}
		}
	})
}

// TestLongChange: while a change of many steps is under way, whose versions follow
// each other faster than another connection reads them, that one still publishes.
func TestLongChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer b.close()
		defer other.close()
		var slow atomic.Bool
		b.f.trouble = func(_ context.Context, call string, after bool) error {
			if call == "apply" && !after && slow.Load() {
				time.Sleep(400 * time.Millisecond)
			}
			return nil
		}
		other.f.trouble = func(_ context.Context, call string, after bool) error {
			if call == "load" && after && slow.Load() {
				time.Sleep(500 * time.Millisecond)
			}
			return nil
		}
		b.declare(plain)
		publishers := []driver.Publisher{b.publisher("x"), other.publisher("x")}
		slow.Store(true)
		done := make(chan struct{})
		var work sync.WaitGroup
		for i, p := range publishers {
			work.Go(func() {
				for {
					select {
					case <-done:
						return
					case <-time.After(50 * time.Millisecond):
					}
					start := time.Now()
					if err := publish(t.Context(), p, driver.Message{Key: "k"}); err != nil {
						t.Errorf("publisher %d: %v", i, err)
					}
					if waited := time.Since(start); waited > LeaseTime/2 {
						t.Errorf("publisher %d waited for %v", i, waited)
					}
				}
			})
		}
		want := manyBindings(16 * MaxElements)
		want.Exchanges[0].Name = "many"
		for i := range want.Bindings {
			want.Bindings[i].Exchange = "many"
		}
		b.declare(want) // more than 6 s of steps
		close(done)
		work.Wait()
	})
}
