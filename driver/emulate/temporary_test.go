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

// there reports whether a queue stands, and that no storage is there without
// it.
func (b *bench) there(name string) bool {
	b.t.Helper()
	_, there := b.state().queues[name]
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	for _, q := range b.w.queues {
		if q.q.Name == name && !there {
			b.t.Errorf("queue %q is gone, its storage is not", name)
		}
	}
	return there
}

// auto is an auto-delete queue with a binding.
var auto = routing.Topology{
	Queues:   []routing.Queue{{Name: "q", AutoDelete: true}},
	Bindings: []routing.Binding{{Exchange: "amq.topic", Queue: "q", Key: "#"}},
}

// TestAutoDelete: the queue goes with its last subscriber at once, with
// whatever is in it, and not before.
func TestAutoDelete(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		other := b.w.bench(t, 30*time.Second)
		b.declare(auto)
		b.publish("q", "1", "2")
		time.Sleep(time.Hour)
		if !b.there("q") {
			t.Fatal("it went though nobody has consumed it")
		}
		one, two := b.subscribe("q", 1), other.subscribe("q", 1)
		if err := one.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Hour)
		if !b.there("q") {
			t.Fatal("it went before its last subscriber")
		}
		b.receive(two)
		other.close()
		if b.there("q") || len(b.w.elements) != 0 {
			t.Errorf("it is still there, with %d elements", len(b.w.elements))
		}
		if err := publish(t.Context(), b.publisher("amq.topic"), driver.Message{}); !errors.Is(err, driver.ErrUnroutable) {
			t.Errorf("published to what is gone: %v", err)
		}
	})
}

// TestAutoDeleteAfterCrash: of consumers that died, and of one that could not
// delete the queue, the leader hears.
func TestAutoDeleteAfterCrash(t *testing.T) {
	for _, crash := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			b, other := w.bench(t, 30*time.Second), w.bench(t, 30*time.Second)
			defer b.close()
			defer other.close()
			var down atomic.Bool
			other.f.trouble = func(_ context.Context, call string, _ bool) error {
				if call == "delete" && down.Load() {
					return errors.New("down")
				}
				return nil
			}
			b.declare(auto)
			b.publisher("")
			s := other.subscribe("q", 1)
			time.Sleep(time.Hour)
			if !b.there("q") {
				t.Fatal("it went while it was consumed")
			}
			left := abandonedTime + abandonedLook + time.Second
			if crash {
				other.f.crash()
				left += 30 * time.Second // the lease of holds, for a consumer
			} else {
				down.Store(true)
				if err := s.Close(t.Context()); err != nil {
					t.Error(err)
				}
				b.publisher("") // somebody leads who can delete
				other.f.crash()
				left += leadTerm + leadRenew
			}
			time.Sleep(left)
			if b.there("q") {
				t.Error("it is still there")
			}
		})
	}
}

// TestExpires: a queue goes when it has not been used for so long, whoever
// declared it; its messages are not dead letters.
func TestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		other := b.w.bench(t, 30*time.Second)
		defer other.close()
		want := graveyard(routing.Queue{Expires: 10 * time.Second})
		stands := func(after time.Duration, there bool) {
			t.Helper()
			time.Sleep(after)
			synctest.Wait()
			if got := b.there("q"); got != there {
				t.Errorf("it is there: %v", got)
			}
		}
		b.declare(want)
		b.publish("q", "1", "2")
		stands(9*time.Second, true)
		other.declare(want)
		stands(9*time.Second, true)
		if err := other.c.Verify(t.Context(), want); err != nil {
			t.Error(err)
		}
		if _, err := other.c.Inspect(t.Context(), "q"); err != nil {
			t.Error(err)
		}
		stands(2*time.Second, false) // neither of these uses it
		b.want("grave")

		b.declare(want)
		s := b.subscribe("q", 1)
		stands(time.Hour, true)
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		stands(9*time.Second, true)
		stands(2*time.Second, false)

		// The leader changes meanwhile; the broker's clock counts.
		b.w.ahead.Store(int64(24 * time.Hour))
		b.declare(want)
		led := leaders(b, other)
		led[0].f.crash()
		time.Sleep(30 * time.Second)
		if last := map[bool]*bench{true: other, false: b}[led[0] == b]; last.there("q") {
			t.Error("it outlived the leader")
		}
	})
}

// TestAutoDeleteUsedAtOnce: a subscriber that comes at the last moment keeps the
// queue.
func TestAutoDeleteUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other, third := w.bench(t, 30*time.Second), w.bench(t, 30*time.Second), w.bench(t, 30*time.Second)
		defer b.close()
		defer other.close()
		defer third.close()
		var abandoned, used atomic.Bool
		b.f.trouble = func(_ context.Context, call string, after bool) error {
			if abandoned.Load() && call == "delete" && !after && !used.Swap(true) {
				third.subscribe("q", 1)
			}
			return nil
		}
		b.declare(auto)
		b.publisher("")
		other.subscribe("q", 1)
		other.f.crash()
		abandoned.Store(true)
		time.Sleep(5 * time.Minute)
		if !used.Load() || !third.there("q") {
			t.Error("consumed while it was deleted, it went")
		}
	})
}

// TestExpiresUsedAtOnce: to be used at the last moment is to stay: no process
// deletes what another has just begun to use.
func TestExpiresUsedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 30*time.Second), w.bench(t, 30*time.Second)
		defer b.close()
		defer other.close()
		var use atomic.Pointer[func()]
		b.f.trouble = func(_ context.Context, call string, after bool) error {
			if f := use.Load(); f != nil && call == "delete" && !after {
				use.Store(nil)
				(*f)()
			}
			return nil
		}
		want := routing.Topology{Queues: []routing.Queue{{Name: "q", Expires: 10 * time.Second}}}
		b.declare(want)
		time.Sleep(time.Second)
		f := func() { other.declare(want) }
		use.Store(&f)
		time.Sleep(15 * time.Second)
		if use.Load() != nil || !other.there("q") {
			t.Error("declared again while it was deleted, it went")
		}
		f = func() { other.subscribe("q", 1) }
		use.Store(&f)
		time.Sleep(time.Minute)
		if use.Load() != nil || !other.there("q") {
			t.Error("consumed while it was deleted, it went")
		}
	})
}

// TestEndingsOfTheLost: an element whose storage is gone is not looked at for
// ever.
func TestEndingsOfTheLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(auto)
		time.Sleep(10 * time.Second)
		b.w.mu.Lock()
		clear(b.w.queues)
		b.w.mu.Unlock()
		time.Sleep(10 * time.Second)
		if b.there("q") {
			t.Error("the element is still there")
		}
	})
}

// TestEnsureExpiring: a queue is marked once, for everybody, and stays the
// same queue.
func TestEnsureExpiring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		other := b.w.bench(t, 0)
		defer other.close()
		b.declare(plain)
		before := b.state()
		q := before.queues["a"]
		for range 2 {
			if err := b.c.(*conn).ensureExpiring(t.Context(), q); err != nil {
				t.Fatal(err)
			}
		}
		if n := b.w.version.N; n != before.version.N+1 {
			t.Errorf("%d changes to mark it twice", n-before.version.N)
		}
		now := other.state().queues["a"]
		if !now.expiring || now.Incarnation != q.Incarnation || q.expiring {
			t.Errorf("it is %+v, was %+v", now, q)
		}
		b.publish("a", "1")
		other.publish("a", "2")
		b.want("a", "1", "2")
		if err := b.c.Verify(t.Context(), plain); err != nil {
			t.Error(err)
		}
		if data := string(b.w.elements[queueName("a")]); !strings.HasPrefix(data, `{"v":2,`) {
			t.Errorf("stored as %s", data)
		}
	})
}

// Many queues that expire at once do not keep each other from it, and a queue
// that cannot be looked at keeps nobody.
func TestManyExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b := w.bench(t, 0)
		defer b.close()
		const n = 2000
		var top routing.Topology
		for i := range n {
			top.Queues = append(top.Queues, routing.Queue{Name: fmt.Sprint("q", i), Expires: time.Minute})
		}
		failed := 0
		b.f.trouble = func(ctx context.Context, call string, after bool) error {
			if call != "usage" && call != "delete" || after {
				return nil
			}
			if failed++; failed%100 == 0 {
				return errors.New("not this one")
			}
			return sleep(ctx, ctx, 2*time.Millisecond)
		}
		b.declare(top)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		got, err := b.c.Topology(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(got.Queues)+len(w.queues) > 0 {
			t.Errorf("%d of %d expired queues are in the topology, %d storages", len(got.Queues), n, len(w.queues))
		}
	})
}

// While the broker was away nobody could use a queue: that is not held against
// it when it is back.
func TestOutageIsNoDisuse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().bench(t, 0)
		defer b.close()
		var down atomic.Bool
		b.f.trouble = func(context.Context, string, bool) error {
			if down.Load() {
				return errors.New("down")
			}
			return nil
		}
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", Expires: 8 * time.Second}}})
		time.Sleep(4 * time.Second)
		down.Store(true)
		time.Sleep(9 * time.Second)
		down.Store(false)
		time.Sleep(5 * time.Second)
		if !b.there("q") {
			t.Error("it went with the broker's outage")
		}
		time.Sleep(30 * time.Second)
		if b.there("q") {
			t.Error("it never goes")
		}
	})
}

// TestOutageUnderAnotherLeader: what a leader knew before another led says nothing
// of the time since, in which the broker may have been away.
func TestOutageUnderAnotherLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer b.close()
		defer other.close()
		var down atomic.Bool
		var follows atomic.Pointer[bench]
		for _, who := range []*bench{b, other} {
			who.f.trouble = func(_ context.Context, call string, _ bool) error {
				if down.Load() || call == "lead" && follows.Load() == who {
					return errors.New("down")
				}
				return nil
			}
		}
		leads := func(who *bench) {
			t.Helper()
			if led := leaders(b, other); len(led) != 1 || led[0] != who {
				t.Fatal("the wrong one leads")
			}
		}
		follows.Store(other)
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", Expires: 25 * time.Second}}})
		s := other.subscribe("q", 1)
		time.Sleep(10 * time.Second)
		leads(b)
		follows.Store(b)
		time.Sleep(10 * time.Second)
		leads(other)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		down.Store(true)
		time.Sleep(30 * time.Second)
		follows.Store(other)
		down.Store(false)
		time.Sleep(5 * time.Second)
		leads(b)
		if !b.there("q") {
			t.Error("it went with the broker's outage")
		}
		time.Sleep(30 * time.Second)
		if b.there("q") {
			t.Error("it never goes")
		}
	})
}
