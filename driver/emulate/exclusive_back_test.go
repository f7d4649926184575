package emulate

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// back checks that the queue p of private came back: empty, another, bound as
// it was, and no storage more than that.
func (b *bench) back(was string) {
	b.t.Helper()
	q := b.state().queues["p"]
	if q == nil || q.Incarnation == was {
		b.t.Fatalf("the queue is %+v", q)
	}
	b.want("p")
	for _, exchange := range []string{"x", "amq.topic"} {
		if err := publish(b.t.Context(), b.publisher(exchange), driver.Message{Key: "k", Body: []byte(exchange)}); err != nil {
			b.t.Errorf("by %s: %v", exchange, err)
		}
	}
	b.want("p", "x", "amq.topic")
	if left := b.w.left(); left != "1 storages, 3 elements" {
		b.t.Errorf("there are %s", left)
	}
}

// TestExclusiveBack: after a lost connection the queue is another, empty, with
// its bindings, and its subscriber has ended.
func TestExclusiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(private)
		if err := b.c.Bind(t.Context(), []routing.Binding{{Exchange: "x", Queue: "p", Key: "gone"}}); err != nil {
			t.Fatal(err)
		}
		if err := b.c.Unbind(t.Context(), []routing.Binding{{Exchange: "x", Queue: "p", Key: "gone"}}); err != nil {
			t.Fatal(err)
		}
		b.publish("p", "1", "2")
		s := b.subscribe("p", 1)
		b.receive(s)
		was := s.q.Incarnation
		b.f.back()
		var buf [1]*driver.Delivery
		for {
			if _, err := s.Receive(t.Context(), buf[:]); err != nil {
				if !errors.Is(err, driver.ErrNotFound) {
					t.Errorf("the subscriber ended with %v", err)
				}
				break
			}
		}
		b.back(was) // it is there when the subscriber has ended
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestExclusiveBackAfterAll: whatever happened to it while the connection was
// lost, the queue comes back.
func TestExclusiveBackAfterAll(t *testing.T) {
	for name, happens := range map[string]func(w *world, other *bench){
		"nothing":            func(*world, *bench) {},
		"the owner was dead": func(*world, *bench) { time.Sleep(2 * time.Minute) },
		"a restart":          func(w *world, _ *bench) { w.lose() },
		"a restart, found by others": func(w *world, other *bench) {
			w.lose()
			if err := publish(other.t.Context(), other.publisher("x"), driver.Message{Key: "k"}); !errors.Is(err, driver.ErrUnroutable) {
				other.t.Errorf("published to a lost queue: %v", err)
			}
			if _, err := other.c.Topology(other.t.Context()); err != nil {
				other.t.Error(err)
			}
		},
		"all was forgotten": func(w *world, _ *bench) {
			w.lose()
			w.mu.Lock()
			for name := range w.elements {
				if !strings.HasPrefix(name, "x.") {
					delete(w.elements, name)
				}
			}
			w.mu.Unlock()
			w.forget()
		},
	} {
		for _, hint := range []bool{true, false} {
			if !hint && name != "the owner was dead" && name != "all was forgotten" {
				continue // the owner cannot know
			}
			t.Run(fmt.Sprint(name, " ", hint), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					b, other := w.bench(t, 0), w.bench(t, 0)
					defer b.close()
					defer other.close()
					var down atomic.Bool
					b.f.trouble = func(ctx context.Context, _ string, _ bool) error {
						for down.Load() {
							if err := sleep(ctx, ctx, 100*time.Millisecond); err != nil {
								return err
							}
						}
						return nil
					}
					want := private
					want.Queues = []routing.Queue{{Name: "p", Exclusive: true, Transient: true}}
					b.declare(want)
					other.publisher("")
					was := b.state().queues["p"].Incarnation
					down.Store(true)
					happens(w, other)
					down.Store(false)
					if hint {
						b.f.back()
					}
					time.Sleep(5 * time.Second)
					b.back(was)
				})
			})
		}
	}
}

// TestExclusiveLostTwice: a queue that is lost again while it is made anew is
// made anew once more.
func TestExclusiveLostTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		var again atomic.Bool
		b.f.trouble = func(_ context.Context, call string, after bool) error {
			if call == "delete" && after && again.Swap(false) { // of the storage that was lost first
				b.w.lose()
				b.f.back()
			}
			return nil
		}
		want := private
		want.Queues = []routing.Queue{{Name: "p", Exclusive: true, Transient: true}}
		b.declare(want)
		was := b.state().queues["p"].Incarnation
		again.Store(true)
		b.f.back()
		time.Sleep(5 * time.Second)
		if again.Load() {
			t.Fatal("it was not lost twice")
		}
		b.back(was)
	})
}

// TestExclusiveTaken: a name that another has taken meanwhile stays the
// other's.
func TestExclusiveTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.bench(t, 0), w.bench(t, 0)
		defer b.close()
		defer other.close()
		log := b.log()
		var down atomic.Bool
		b.f.trouble = func(context.Context, string, bool) error {
			if down.Load() {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		b.declare(private)
		other.publisher("")
		down.Store(true)
		time.Sleep(2 * time.Minute)
		other.declare(private)
		other.publish("p", "theirs")
		down.Store(false)
		b.f.back()
		time.Sleep(5 * time.Second)
		other.want("p", "theirs")
		if !strings.Contains(log.String(), "its name is taken") {
			t.Errorf("the log is silent:\n%s", log)
		}
		if left := w.left(); left != "1 storages, 3 elements" {
			t.Errorf("there are %s", left)
		}
	})
}

// TestExclusiveAnyTime: losses, deletions and declarations in any order leave
// what they should, and no storage more.
func TestExclusiveAnyTime(t *testing.T) {
	for seed := range uint64(150) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 7))
			w := newWorld()
			b := w.bench(t, 0)
			var mu sync.Mutex
			b.f.trouble = func(_ context.Context, call string, after bool) error {
				mu.Lock()
				d, fails := time.Duration(rng.IntN(3000))*time.Microsecond, rng.IntN(10) == 0
				mu.Unlock()
				time.Sleep(d)
				if fails && (call == "create" && !after || call == "apply") {
					return driver.ErrUnconfirmed
				}
				return nil
			}
			ctx := t.Context()
			try := func(f func() error) {
				for {
					err := f()
					if err == nil {
						return
					}
					if !errors.Is(err, driver.ErrUnconfirmed) {
						t.Fatalf("seed %d: %v", seed, err)
					}
				}
			}
			try(func() error { return b.c.Declare(ctx, private) })
			there := true
			var work sync.WaitGroup
			work.Go(func() {
				for range 5 {
					mu.Lock()
					d := time.Duration(rng.IntN(20)) * time.Millisecond
					mu.Unlock()
					time.Sleep(d)
					b.f.back()
				}
			})
			for range 6 {
				if there {
					try(func() error { return b.c.DeleteQueue(ctx, "p", driver.DeleteOptions{}) })
				} else {
					try(func() error { return b.c.Declare(ctx, private) })
				}
				there = !there
				mu.Lock()
				d := time.Duration(rng.IntN(15)) * time.Millisecond
				mu.Unlock()
				time.Sleep(d)
			}
			work.Wait()
			time.Sleep(10 * time.Second)
			want := nothing
			if there {
				want = "1 storages, 3 elements"
			}
			if left := w.left(); left != want {
				t.Errorf("seed %d: there are %s, want %s", seed, left, want)
			}
			synctest.Wait()
			b.f.trouble = nil
			b.close()
			if left := w.left(); left != nothing {
				t.Errorf("seed %d: closed, there are %s", seed, left)
			}
		})
		if t.Failed() {
			return
		}
	}
}

// TestExclusiveOwnerWakes: an owner that comes back while others delete its
// queue for being dead has it again, whatever they have done so far.
func TestExclusiveOwnerWakes(t *testing.T) {
	for _, at := range []string{"leases", "delete", "apply"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprint(at, " ", after), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					b, other := w.bench(t, 0), w.bench(t, 0)
					defer b.close()
					defer other.close()
					var down, woke atomic.Bool
					b.f.trouble = func(context.Context, string, bool) error {
						if down.Load() {
							return driver.ErrUnconfirmed
						}
						return nil
					}
					other.f.trouble = func(_ context.Context, call string, late bool) error {
						w.mu.Lock()
						dead := down.Load() && len(w.leases) < 2
						w.mu.Unlock()
						if dead && call == at && late == after && !woke.Swap(true) {
							down.Store(false)
							time.Sleep(1500 * time.Millisecond) // the keeper's pause is a second at most
						}
						return nil
					}
					b.declare(private)
					other.publisher("")
					was := b.state().queues["p"].Incarnation
					time.Sleep(5 * time.Second)
					down.Store(true)
					time.Sleep(2 * time.Minute)
					if !woke.Load() {
						t.Fatal("nobody has taken it for dead")
					}
					b.back(was)
				})
			})
		}
	}
}
