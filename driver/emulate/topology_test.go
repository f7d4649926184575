package emulate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func TestConflicts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		x := routing.Exchange{Name: "x", Kind: routing.Topic, Alternate: "alt"}
		q := routing.Queue{Name: "q", DeadLetterExchange: "x", DeadLetterKey: "k", MaxAttempts: 3, MaxLength: 5}
		b.declare(routing.Topology{Exchanges: []routing.Exchange{x}, Queues: []routing.Queue{q}})
		b.declare(routing.Topology{Exchanges: []routing.Exchange{x}, Queues: []routing.Queue{q}})
		other := b.w.bench(t, 0)
		defer other.close()
		for field, change := range map[string]func(*routing.Exchange, *routing.Queue){
			"Kind":                      func(x *routing.Exchange, _ *routing.Queue) { x.Kind = routing.Direct },
			"Alternate":                 func(x *routing.Exchange, _ *routing.Queue) { x.Alternate = "" },
			"Transient":                 func(x *routing.Exchange, _ *routing.Queue) { x.Transient = true },
			"DeadLetterExchange":        func(_ *routing.Exchange, q *routing.Queue) { q.DeadLetterExchange = "y" },
			"DeadLetterKey":             func(_ *routing.Exchange, q *routing.Queue) { q.DeadLetterKey = "" },
			"MaxAttempts":               func(_ *routing.Exchange, q *routing.Queue) { q.MaxAttempts = 0 },
			"BestEffortDeadLetter":      func(_ *routing.Exchange, q *routing.Queue) { q.BestEffortDeadLetter = true },
			"TTL is 0s, asked for 1m0s": func(_ *routing.Exchange, q *routing.Queue) { q.TTL = time.Minute },
			"Expires":                   func(_ *routing.Exchange, q *routing.Queue) { q.Expires = time.Minute },
			"MaxLength":                 func(_ *routing.Exchange, q *routing.Queue) { q.MaxLength = 0 },
			"MaxBytes":                  func(_ *routing.Exchange, q *routing.Queue) { q.MaxBytes = 5 },
			"Overflow":                  func(_ *routing.Exchange, q *routing.Queue) { q.Overflow = routing.RejectPublish },
			"MaxPriority":               func(_ *routing.Exchange, q *routing.Queue) { q.MaxPriority = 9 },
			"SingleActiveConsumer":      func(_ *routing.Exchange, q *routing.Queue) { q.SingleActiveConsumer = true },
			"Exclusive":                 func(_ *routing.Exchange, q *routing.Queue) { q.Exclusive = true },
			"AutoDelete":                func(_ *routing.Exchange, q *routing.Queue) { q.AutoDelete = true },
		} {
			x, q := x, q
			change(&x, &q)
			want := routing.Topology{Exchanges: []routing.Exchange{x}, Queues: []routing.Queue{q}}
			for name, err := range map[string]error{"Declare": other.c.Declare(t.Context(), want), "Verify": other.c.Verify(t.Context(), want)} {
				if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), field) {
					t.Errorf("%s with another %s: %v", name, field, err)
				}
			}
		}
		q.Overflow = routing.DropHead // the default, spelt out
		b.declare(routing.Topology{Queues: []routing.Queue{q}})
		if n := len(b.w.queues); n != 1 {
			t.Errorf("%d storages are left", n)
		}
		for _, q := range []routing.Queue{{Name: "r", Type: "stream"}, {Name: "r", Args: map[string]any{"x": 1}}} {
			if err := b.c.Declare(t.Context(), routing.Topology{Queues: []routing.Queue{q}}); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%+v: %v", q, err)
			}
		}
	})
}

func TestMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		ctx := t.Context()
		bind := func(x routing.Binding) error { return b.c.Bind(ctx, []routing.Binding{x}) }
		_, inspect := b.c.Inspect(ctx, "no")
		_, purge := b.c.Purge(ctx, "no")
		_, subscriber := b.c.Subscriber(ctx, driver.SubscriberConfig{Queue: "no", Prefetch: 1})
		for name, c := range map[string]struct{ err, want error }{
			"bind from nowhere":     {bind(routing.Binding{Exchange: "no", Queue: "a"}), driver.ErrNotFound},
			"bind to no queue":      {bind(routing.Binding{Exchange: "x", Queue: "no"}), driver.ErrNotFound},
			"bind to no exchange":   {bind(routing.Binding{Exchange: "x", ToExchange: "no"}), driver.ErrNotFound},
			"bind the default":      {bind(routing.Binding{Exchange: "", Queue: "a"}), driver.ErrPermission},
			"bind to the default":   {bind(routing.Binding{Exchange: "x", ToExchange: routing.DefaultExchange}), driver.ErrPermission},
			"bind amq.topic":        {bind(routing.Binding{Exchange: "amq.topic", Queue: "a", Key: "#"}), nil},
			"unbind what is not":    {b.c.Unbind(ctx, []routing.Binding{{Exchange: "no", Queue: "no"}}), nil},
			"delete no queue":       {b.c.DeleteQueue(ctx, "no", driver.DeleteOptions{}), nil},
			"delete no exchange":    {b.c.DeleteExchange(ctx, "no", driver.DeleteOptions{}), nil},
			"delete amq.topic":      {b.c.DeleteExchange(ctx, "amq.topic", driver.DeleteOptions{}), driver.ErrPermission},
			"delete a used one":     {b.c.DeleteExchange(ctx, "x", driver.DeleteOptions{IfUnused: true}), driver.ErrInUse},
			"inspect nothing":       {inspect, driver.ErrNotFound},
			"purge nothing":         {purge, driver.ErrNotFound},
			"subscribe to nothing":  {subscriber, driver.ErrNotFound},
			"verify nothing":        {b.c.Verify(ctx, routing.Topology{Queues: []routing.Queue{{Name: "no"}}}), driver.ErrNotFound},
			"verify no binding":     {b.c.Verify(ctx, routing.Topology{Bindings: []routing.Binding{{Exchange: "x", Queue: "a", Key: "no"}}}), driver.ErrNotFound},
			"verify what is there":  {b.c.Verify(ctx, plain), nil},
			"a pattern not allowed": {bind(routing.Binding{Exchange: "amq.topic", Queue: "a", Key: "#.#.#"}), routing.ErrInvalid},
		} {
			if !errors.Is(c.err, c.want) {
				t.Errorf("%s: %v, want %v", name, c.err, c.want)
			}
		}
	})
}

// TestDeletions: with a queue or an exchange go its bindings, however many.
func TestDeletions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		want := routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}, {Name: "y", Kind: routing.Fanout}},
			Queues:    []routing.Queue{{Name: "a"}, {Name: "b"}},
			Bindings:  []routing.Binding{{Exchange: "x", ToExchange: "y", Key: "e"}, {Exchange: "y", Queue: "b"}},
		}
		for i := range 3 * MaxElements {
			want.Bindings = append(want.Bindings, routing.Binding{Exchange: "x", Queue: "a", Key: fmt.Sprint(i)})
		}
		b.declare(want)
		check := func(exchanges, queues, bindings int) {
			t.Helper()
			top, err := b.c.Topology(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(top.Exchanges) != exchanges || len(top.Queues) != queues || len(top.Bindings) != bindings {
				t.Errorf("%d exchanges, %d queues, %d bindings", len(top.Exchanges), len(top.Queues), len(top.Bindings))
			}
			if n := len(b.w.elements); n != exchanges+queues+bindings {
				t.Errorf("the broker has %d elements", n)
			}
		}
		check(2, 2, 3*MaxElements+2)
		if err := b.c.DeleteQueue(t.Context(), "a", driver.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check(2, 1, 2)
		if err := b.c.DeleteExchange(t.Context(), "y", driver.DeleteOptions{IfUnused: true}); !errors.Is(err, driver.ErrInUse) {
			t.Errorf("IfUnused: %v", err)
		}
		if err := b.c.DeleteExchange(t.Context(), "y", driver.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		check(1, 1, 0)
	})
}

// TestDeclaredAtOnce: of many processes that declare the same queue at once
// all succeed, one incarnation wins, and no other storage stays.
func TestDeclaredAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var work sync.WaitGroup
		for i := range 8 {
			b := w.bench(t, 0)
			b.f.trouble = func(ctx context.Context, call string, after bool) error {
				time.Sleep(time.Duration((i*7+len(call)*3)%11) * time.Millisecond)
				if call == "apply" && after && i%2 == 0 {
					return driver.ErrUnconfirmed // it happened all the same
				}
				return nil
			}
			work.Go(func() {
				defer b.close()
				b.declare(plain)
			})
		}
		work.Wait()
		if n := len(w.queues); n != 2 {
			t.Errorf("%d storages for 2 queues", n)
		}
		b := w.bench(t, 0)
		defer b.close()
		if err := b.c.Verify(t.Context(), plain); err != nil {
			t.Error(err)
		}
	})
}

// TestTransientIsLost: a transient queue that a restart took with it is not
// there any more for anybody, and can be declared again.
func TestTransientIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		want := routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
			Queues:    []routing.Queue{{Name: "q", Transient: true}},
			Bindings:  []routing.Binding{{Exchange: "x", Queue: "q"}},
		}
		lose := func() {
			b.declare(want)
			clear(b.w.queues)
		}
		lose()
		if err := b.c.Bind(t.Context(), []routing.Binding{{Exchange: "x", Queue: "q", Key: "other"}}); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("Bind: %v", err)
		}
		lose()
		if _, err := b.c.Inspect(t.Context(), "q"); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("Inspect: %v", err)
		}
		lose()
		if err := b.c.Verify(t.Context(), want); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("Verify: %v", err)
		}
		// Its bindings went with it.
		b.declare(routing.Topology{Queues: want.Queues})
		if top, err := b.c.Topology(t.Context()); err != nil || len(top.Bindings) != 0 || len(top.Queues) != 1 {
			t.Errorf("declared again: %+v, %v", top, err)
		}
	})
}

// TestNewerMeanwhile: a newer version writes what this one cannot read, while a
// Declare makes a storage.
func TestNewerMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		c := b.c.(*conn)
		b.f.trouble = func(ctx context.Context, call string, after bool) error {
			if call != "create" || !after {
				return nil
			}
			at := c.topo.current().version
			if _, err := b.f.ApplyTopology(ctx, at, []Element{{"s.1", []byte(`{"v":2,"stream":{"name":"s"}}`)}}); err != nil {
				t.Error(err)
			}
			_, _ = c.refresh(ctx) // as the keeper does, which hears of it
			return nil
		}
		err := b.c.Declare(t.Context(), plain)
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "newer") {
			t.Errorf("Declare: %v", err)
		}
	})
}

// TestNewer: what a newer version wrote is refused, and not rewritten.
func TestNewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		p := b.publisher("x")
		newer := []byte(`{"v":2,"stream":{"name":"s"}}`)
		ch, err := b.f.LoadTopology(t.Context(), Version{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.f.ApplyTopology(t.Context(), ch.Version, []Element{{"s.1", newer}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the keeper has heard of it
		check := func(what string, err error) {
			t.Helper()
			if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "newer") {
				t.Errorf("%s: %v", what, err)
			}
		}
		ctx := t.Context()
		check("Publish", publish(ctx, p, driver.Message{Key: "k"}))
		check("Declare", b.c.Declare(ctx, plain))
		check("Unbind", b.c.Unbind(ctx, plain.Bindings))
		check("DeleteQueue", b.c.DeleteQueue(ctx, "a", driver.DeleteOptions{}))
		_, err = b.c.Topology(ctx)
		check("Topology", err)
		time.Sleep(2 * LeaseTime)
		check("Publish later", publish(ctx, p, driver.Message{Key: "k"}))
		if string(b.w.elements["s.1"]) != string(newer) {
			t.Error("the newer element was rewritten")
		}
		// Gone, everything works again.
		if _, err := b.f.ApplyTopology(ctx, b.w.version, []Element{{Name: "s.1"}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := publish(ctx, p, driver.Message{Key: "k"}); err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkPlanDeclare: the time for each queue must not grow with their
// number.
func BenchmarkPlanDeclare(b *testing.B) {
	for _, n := range []int{1000, 20_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := &conn{}
			c.topo.init(c)
			want := routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}}}
			s := storages{made: map[string]*Queue{}}
			for i := range n {
				q := routing.Queue{Name: fmt.Sprintf("a queue with a usual name %06d", i)}
				want.Queues = append(want.Queues, q)
				want.Bindings = append(want.Bindings, routing.Binding{Exchange: "x", Queue: q.Name})
				s.made[q.Name] = &Queue{Queue: q, Incarnation: "i"}
			}
			for b.Loop() {
				if _, err := c.topo.planDeclare(want, &s); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/queue")
		})
	}
}
