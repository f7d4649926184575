package emulate

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// A binding that cannot be made anew does not keep a connection from publishing for
// ever, however many others there are.
func TestRestoreWithOneHopeless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 30*time.Second), w.bench(t, 30*time.Second)
		defer b.close()
		defer other.close()
		var far atomic.Bool
		b.f.trouble = func(_ context.Context, call string, after bool) error {
			if call == "load" && !after && far.Load() {
				time.Sleep(time.Millisecond)
			}
			return nil
		}
		other.declare(routing.Topology{Exchanges: []routing.Exchange{{Name: "theirs", Kind: routing.Fanout}}})
		want := routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
			Queues:    []routing.Queue{{Name: "q"}},
			Bindings:  []routing.Binding{{Exchange: "theirs", Queue: "q"}},
		}
		for i := range 3500 {
			want.Bindings = append(want.Bindings, routing.Binding{Exchange: "x", Queue: "q", Key: fmt.Sprintf("k%d", i)})
		}
		b.declare(want)
		x := b.publisher("x")
		if err := b.outcome(x, "warm up"); err == nil {
			t.Fatal("routed")
		}
		if err := other.c.DeleteExchange(t.Context(), "theirs", driver.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		far.Store(true)
		b.f.back() // the connection was cut for a moment
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		start := time.Now()
		if err := publish(ctx, x, driver.Message{Key: "k1"}); err != nil {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
	})
}

// While a lost queue with many bindings is made anew, and another one is out of
// reach, nothing that is published misses it.
func TestRestoreOfManyBindings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		f := &failing{fake: w.client(), queue: "hung", hangs: true}
		f.lease = 30 * time.Second
		f.mended.Store(true)
		var far atomic.Bool
		f.trouble = func(_ context.Context, call string, after bool) error {
			if call == "apply" && !after && far.Load() {
				time.Sleep(250 * time.Millisecond)
			}
			return nil
		}
		b := &bench{t: t, w: w, f: f.fake}
		var err error
		if b.c, err = New(t.Context(), f, Config{}); err != nil {
			t.Fatal(err)
		}
		defer b.close()
		want := routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
			Queues:    []routing.Queue{{Name: "gone", Transient: true}, {Name: "hung"}, {Name: "lasts"}},
			Bindings:  []routing.Binding{{Exchange: "x", Queue: "lasts", Key: "#"}},
		}
		for i := range 3 * MaxElements {
			want.Bindings = append(want.Bindings, routing.Binding{Exchange: "x", Queue: "gone", Key: fmt.Sprintf("k%d", i)})
		}
		b.declare(want)
		x := b.publisher("x")
		far.Store(true)
		f.mended.Store(false)
		b.w.lose()
		b.f.back()
		var work sync.WaitGroup
		var confirmed atomic.Int64
		for i := range 300 {
			time.Sleep(50 * time.Millisecond)
			work.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
				defer cancel()
				if err := publish(ctx, x, driver.Message{Key: fmt.Sprintf("k%d", i%(3*MaxElements)), Body: fmt.Append(nil, i)}); err != nil {
					t.Errorf("%d: %v", i, err)
					return
				}
				confirmed.Add(1)
			})
		}
		time.Sleep(time.Minute)
		f.mended.Store(true)
		work.Wait()
		sure := int(confirmed.Load())
		if got, all := len(b.bodies("gone")), len(b.bodies("lasts")); got != sure || all != sure {
			t.Errorf("%d were confirmed, %d are in the queue that was made anew, %d in the one that lasts", sure, got, all)
		}
	})
}

// While a queue that is gone cannot be made anew, whoever looks at the topology holds
// nothing up, and a binding to it is made when it stands.
func TestRestoreBesideOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, f, x, y := restoring(t, false)
		defer b.close()
		f.mended.Store(false)
		b.w.lose()
		b.f.back()
		if err := b.outcome(y, "before"); err != nil {
			t.Errorf("before: %v", err)
		}
		got, err := b.c.Topology(t.Context())
		if err != nil || len(got.Queues) != 2 {
			t.Errorf("the topology: %v, %v", got.Queues, err)
		}
		if err := b.outcome(y, "after"); err != nil {
			t.Errorf("after: %v", err)
		}
		bound := make(chan error, 1)
		go func() { bound <- b.c.Bind(t.Context(), []routing.Binding{{Exchange: "y", Queue: "gone"}}) }()
		synctest.Wait()
		time.Sleep(20 * time.Second)
		select {
		case err := <-bound:
			t.Fatalf("Bind to a queue that is gone: %v", err)
		default:
		}
		f.mended.Store(true)
		if err := <-bound; err != nil {
			t.Fatal(err)
		}
		for _, p := range []driver.Publisher{x, y} {
			if err := b.outcome(p, "both"); err != nil {
				t.Error(err)
			}
		}
		b.want("gone", "both", "both")
	})
}
