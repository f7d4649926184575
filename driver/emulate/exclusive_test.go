package emulate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// private is an exclusive queue with a binding.
var private = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
	Queues:    []routing.Queue{{Name: "p", Exclusive: true}},
	Bindings:  []routing.Binding{{Exchange: "x", Queue: "p", Key: "k"}, {Exchange: "amq.topic", Queue: "p", Key: "k"}},
}

// TestExclusive: everything but publishing is the owner's.
func TestExclusive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		other := b.w.bench(t, 0)
		defer other.close()
		b.declare(private)
		ctx := t.Context()
		calls := func(c driver.Conn) map[string]error {
			errs := map[string]error{
				"Declare": c.Declare(ctx, routing.Topology{Queues: private.Queues}),
				"Bind":    c.Bind(ctx, []routing.Binding{{Exchange: "x", Queue: "p", Key: "other"}}),
				"bound":   c.Bind(ctx, private.Bindings),
				"Unbind":  c.Unbind(ctx, []routing.Binding{{Exchange: "x", Queue: "p", Key: "other"}}),
			}
			_, errs["Inspect"] = c.Inspect(ctx, "p")
			_, errs["Purge"] = c.Purge(ctx, "p")
			s, err := c.Subscriber(ctx, driver.SubscriberConfig{Queue: "p", Prefetch: 1})
			if errs["Subscriber"] = err; err == nil {
				errs["Close"] = s.Close(ctx)
			}
			errs["Delete"] = c.DeleteQueue(ctx, "p", driver.DeleteOptions{})
			return errs
		}
		mixed := other.c.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "free"}, {Name: "p", TTL: time.Second}}})
		for what, err := range calls(other.c) {
			if !errors.Is(err, driver.ErrInUse) {
				t.Errorf("%s by another: %v", what, err)
			}
		}
		if !errors.Is(mixed, driver.ErrInUse) {
			t.Errorf("Declare of it as another queue, by another: %v", mixed)
		}
		if err := other.c.Verify(ctx, private); err != nil {
			t.Errorf("Verify by another: %v", err)
		}
		other.publish("p", "1")
		b.want("p", "1")
		shared := routing.Topology{Queues: []routing.Queue{{Name: "p"}}}
		if err := b.c.Declare(ctx, shared); !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), "Exclusive") {
			t.Errorf("declared as not exclusive: %v", err)
		}
		for what, err := range calls(b.c) {
			if err != nil {
				t.Errorf("%s by the owner: %v", what, err)
			}
		}
		if len(b.w.queues) != 0 {
			t.Errorf("%d storages are left", len(b.w.queues))
		}
		other.declare(shared)
	})
}

// left says what a world still has of exclusive queues.
func (w *world) left() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, data := range w.elements {
		if strings.Contains(string(data), `"owner"`) || strings.Contains(string(data), `"queue":"p"`) {
			n++
		}
	}
	return fmt.Sprintf("%d storages, %d elements", len(w.queues), n)
}

const nothing = "0 storages, 0 elements"

// TestExclusiveEnds: with the connection at once, with its process when its
// lease has run out; not while it lives, however badly.
func TestExclusiveEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.declare(private)
		b.publish("p", "1")
		b.close()
		if left := b.w.left(); left != nothing {
			t.Errorf("closed: %s", left)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer other.close()
		var down atomic.Bool
		b.f.trouble = func(context.Context, string, bool) error {
			if down.Load() {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		b.declare(private)
		other.publisher("") // routes, and so looks after queues
		for range 20 {
			down.Store(true)
			time.Sleep(recordTime - 2*time.Second)
			down.Store(false)
			time.Sleep(3 * time.Second)
		}
		if left := w.left(); left != "1 storages, 3 elements" {
			t.Errorf("while the owner lives: %s", left)
		}
		b.f.crash()
		time.Sleep(10*LeaseTime + LeaseTime + leadTerm + 3*time.Second)
		if left := w.left(); left != nothing {
			t.Errorf("after a crash: %s", left)
		}
		other.declare(private)
		b.close()
		if left := w.left(); left != "1 storages, 3 elements" {
			t.Errorf("the dead owner's end took another's queue: %s", left)
		}
	})
}

// TestExclusiveOwnerForgotten: a broker that has lost the leases does not make
// their owners dead.
func TestExclusiveOwnerForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer b.close()
		defer other.close()
		b.declare(private)
		other.publisher("")
		time.Sleep(10 * time.Second)
		incarnation := b.state().queues["p"].Incarnation
		w.mu.Lock()
		clear(w.leases)
		w.restarted = time.Now()
		w.mu.Unlock()
		time.Sleep(time.Minute)
		if q := other.state().queues["p"]; q == nil || q.Incarnation != incarnation {
			t.Errorf("the queue is %+v", q)
		}
	})
}

// TestExclusiveOwnerAway: after a restart that forgot the leases everybody has
// time to renew before anything is taken from the dead.
func TestExclusiveOwnerAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer b.close()
		defer other.close()
		var down atomic.Bool
		b.f.trouble = func(context.Context, string, bool) error {
			if down.Load() {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		b.declare(private)
		other.publisher("")
		time.Sleep(10 * time.Second)
		was := b.state().queues["p"].Incarnation
		down.Store(true)
		w.mu.Lock()
		clear(w.leases)
		w.restarted = time.Now()
		w.mu.Unlock()
		time.Sleep(recordTime - 3*time.Second)
		down.Store(false)
		time.Sleep(time.Minute)
		if q := other.state().queues["p"]; q == nil || q.Incarnation != was {
			t.Errorf("the queue is %+v", q)
		}
	})
}

// state is the topology as it stands.
func (b *bench) state() *state {
	b.t.Helper()
	st, err := b.c.(*conn).refresh(b.t.Context())
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

// TestExclusiveLostOfAnother: whoever finds that another's exclusive queue was
// lost waits for nobody: it is the owner's to make it anew.
func TestExclusiveLostOfAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer b.close()
		defer other.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "p", Exclusive: true, Transient: true}}})
		other.publisher("")
		w.lose()
		began := time.Now()
		if _, err := other.c.Topology(t.Context()); err != nil {
			t.Error(err)
		}
		if err := other.c.Bind(t.Context(), []routing.Binding{{Exchange: "amq.topic", Queue: "p"}}); !errors.Is(err, driver.ErrInUse) {
			t.Error(err)
		}
		if took := time.Since(began); took > LeaseTime/2 {
			t.Errorf("it took %v", took)
		}
	})
}
