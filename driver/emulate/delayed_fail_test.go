package emulate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestDelayedRefused: a target that refuses gets the message when it takes it,
// the others at once and once only, and nobody waits for it.
func TestDelayedRefused(t *testing.T) {
	for _, others := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			b := newWorld().delaying(t)
			defer b.close()
			b.declare(routing.Topology{
				Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
				Queues:    []routing.Queue{{Name: "a"}, {Name: "b"}, {Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}},
				Bindings:  []routing.Binding{{Exchange: "x", Queue: "full"}},
			})
			if others {
				b.declare(routing.Topology{Bindings: []routing.Binding{{Exchange: "x", Queue: "a"}, {Exchange: "x", Queue: "b"}}})
			}
			b.publish("full", "in the way")
			want := []string{}
			for i := range delayedPrefetch + 100 {
				b.delay("x", driver.Message{Body: fmt.Append(nil, i), Header: driver.Header{"h": "v"}}, time.Second)
				want = append(want, fmt.Sprint(i))
			}
			if !others {
				want = nil
			}
			synctest.Wait()
			b.delay("", driver.Message{Key: "a", Body: []byte("not held up")}, 2*time.Second)
			time.Sleep(2*time.Second + 100*time.Millisecond)
			synctest.Wait()
			got := b.bodies("a")
			if len(got) != len(want)+1 || got[len(want)] != "not held up" {
				t.Errorf("there are %d", len(got))
			}
			time.Sleep(10 * time.Minute)
			synctest.Wait()
			if n := len(b.bodies("b")); n != len(want) {
				t.Errorf("after many refusals there are %d, want %d", n, len(want))
			}
			began := time.Now()
			s := b.subscribe("full", 1)
			b.settle(s, b.receive(s), driver.Ack)
			d := b.receive(s)
			if took := time.Since(began); took > longestPause+2*time.Second || d.Message.Header["h"] != "v" || len(d.Message.Header) != 1 || d.Message.Delay != 0 {
				t.Errorf("after %v it took %+v", took, d)
			}
		})
	}
}

// TestDelayedRefusedThenUnbound: what some queues have is not unroutable when the
// one that refused it is bound no more.
func TestDelayedRefusedThenUnbound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		top := routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
			Queues:    []routing.Queue{{Name: "a"}, {Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}},
			Bindings:  []routing.Binding{{Exchange: "x", Queue: "a"}, {Exchange: "x", Queue: "full"}},
		}
		b.declare(top)
		b.publish("full", "in the way")
		b.delay("x", driver.Message{Body: []byte("m")}, time.Second)
		time.Sleep(10 * time.Second)
		if err := b.c.Unbind(t.Context(), top.Bindings); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		b.want("a", "m")
		b.want("full", "in the way")
		b.want(delayedQueue)
		if b.state().queues[driver.UnroutableQueue] != nil {
			b.want(driver.UnroutableQueue)
		}
	})
}

// TestDelayedSilence: a target that does not answer holds up nobody for long,
// and loses nothing.
func TestDelayedSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		var silent atomic.Bool
		silent.Store(true)
		b.f.refuse = func(p *Parcel) error {
			if p.Queue.Name == "b" && silent.Load() {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		b.declare(plain)
		for i := range 2 * delayedPrefetch {
			b.delay("", driver.Message{Key: "b", Body: fmt.Append(nil, i)}, time.Second)
		}
		b.delay("", driver.Message{Key: "a", Body: []byte("m")}, time.Second)
		time.Sleep(time.Second + 3*delayedPatience)
		synctest.Wait()
		b.want("a", "m")
		time.Sleep(10 * time.Minute)
		silent.Store(false)
		time.Sleep(longestPause + 2*delayedPatience)
		synctest.Wait()
		got := map[string]bool{}
		for _, body := range b.bodies("b") {
			got[body] = true
		}
		if len(got) != 2*delayedPrefetch {
			t.Errorf("%d of %d have arrived", len(got), 2*delayedPrefetch)
		}
	})
}

// TestDelayedCrash: a process that dies at any step of a move loses nothing:
// another makes it.
func TestDelayedCrash(t *testing.T) {
	for _, what := range []string{"settle", "settled", "append", "appended"} {
		for nth := range 8 {
			t.Run(fmt.Sprint(what, nth), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := newWorld()
					first, b := w.delaying(t), w.delaying(t)
					defer b.close()
					first.declare(plain)
					first.declare(routing.Topology{Queues: []routing.Queue{{Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}},
						Bindings: []routing.Binding{{Exchange: "x", Queue: "full", Key: "k"}}})
					first.publish("full", "in the way")
					first.delay("x", driver.Message{Key: "k", Body: []byte("first")}, 10*time.Second)
					first.delay("x", driver.Message{Key: "k", Body: []byte("m")}, 10*time.Second)
					first.close()
					var left atomic.Int64
					left.Store(int64(nth) + 1)
					b.f.point = func(at string) {
						if at == what && left.Add(-1) == 0 {
							b.f.crash()
						}
					}
					b.publisher("") // begins to route, and to move
					time.Sleep(time.Minute)
					other := w.delaying(t)
					defer other.close()
					other.publisher("")
					time.Sleep(time.Minute)
					if !b.f.crashed.Load() {
						t.Fatal("it has not died")
					}
					s := other.subscribe("full", 1)
					got := map[string]int{}
					for len(got) < 3 {
						ctx, cancel := context.WithTimeout(t.Context(), 3*longestPause)
						var buf [1]*driver.Delivery
						if _, err := s.Receive(ctx, buf[:]); err != nil {
							t.Fatalf("%v after %v", err, got)
						}
						cancel()
						got[string(buf[0].Message.Body)]++
						other.settle(s, buf[0], driver.Ack)
					}
					for _, queue := range []string{"a", "b"} {
						bodies := other.bodies(queue)
						if !slices.Contains(bodies, "m") || !slices.Contains(bodies, "first") || len(bodies) > 4 {
							t.Errorf("queue %q has %q", queue, bodies)
						}
					}
				})
			})
		}
	}
}

// TestDelayedQueueLost: what the broker loses it loses; the next delay works.
func TestDelayedQueueLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		b.declare(plain)
		b.delay("", driver.Message{Key: "a", Body: []byte("1")}, time.Second)
		time.Sleep(2 * time.Second)
		b.w.mu.Lock()
		for name, q := range b.w.queues {
			if q.q.Name == delayedQueue {
				q.end(driver.ErrNotFound)
				delete(b.w.queues, name)
			}
		}
		b.w.mu.Unlock()
		b.delay("", driver.Message{Key: "a", Body: []byte("2")}, time.Second)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.want("a", "1", "2")
	})
}

// TestDelayedFailing: whatever goes wrong for a while, the message arrives, and
// the log says why it is late.
func TestDelayedFailing(t *testing.T) {
	for _, call := range []string{"consume", "create", "load", "apply", "renew"} {
		synctest.Test(t, func(t *testing.T) {
			b := newWorld().delaying(t)
			defer b.close()
			log := b.log()
			b.declare(plain)
			var down atomic.Bool
			synctest.Wait()
			b.f.trouble = func(_ context.Context, c string, _ bool) error {
				if down.Load() && c == call {
					return fmt.Errorf("%w: no answer", driver.ErrUnconfirmed)
				}
				return nil
			}
			p := b.publisher("")
			down.Store(true)
			time.Sleep(LeaseTime)
			sent := make(chan error, 1)
			go func() {
				sent <- publish(t.Context(), p, driver.Message{Key: "nowhere", Body: []byte("m"), Delay: time.Second})
			}()
			time.Sleep(20 * time.Second)
			down.Store(false)
			time.Sleep(longestPause)
			synctest.Wait()
			if err := <-sent; err != nil {
				t.Errorf("%s fails: %v", call, err)
			}
			b.want(driver.UnroutableQueue, "m")
			if !strings.Contains(log.String(), "trying again") {
				t.Errorf("%s fails: the log is silent:\n%s", call, log)
			}
		})
	}
}

// TestDelayedSomeSilent: what a target that does not answer keeps waiting, the
// others get once.
func TestDelayedSomeSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		b.declare(routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
			Queues:    []routing.Queue{{Name: "ok"}, {Name: "silent"}},
			Bindings:  []routing.Binding{{Exchange: "x", Queue: "ok"}, {Exchange: "x", Queue: "silent"}},
		})
		var silent atomic.Bool
		silent.Store(true)
		b.f.refuse = func(p *Parcel) error {
			if p.Queue.Name == "silent" && silent.Load() {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		b.delay("x", driver.Message{Body: []byte("m")}, time.Second)
		time.Sleep(10 * time.Minute)
		silent.Store(false)
		time.Sleep(longestPause + delayedPatience)
		synctest.Wait()
		b.want("ok", "m")
		b.want("silent", "m")
		b.want(delayedQueue)
	})
}

// tardy is a store that keeps parcels back.
type tardy struct {
	*fake
	keeps func(p *Parcel) bool

	mu   sync.Mutex
	kept []*Parcel
}

func (s *tardy) Append(ctx context.Context, parcels []*Parcel, wait bool) {
	for _, p := range parcels {
		if s.keeps(p) {
			s.mu.Lock()
			s.kept = append(s.kept, p)
			s.mu.Unlock()
			continue
		}
		s.fake.Append(ctx, []*Parcel{p}, wait)
	}
}

// arrive stores what was kept back.
func (s *tardy) arrive(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fake.Append(ctx, s.kept, false)
	s.kept = nil
}

// TestDelayedLate: the outcome of a try that was given up is not that of the
// next one, which goes elsewhere, and neither carries what the other does.
func TestDelayedLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &tardy{fake: newWorld().client()}
		st.lease, st.attentive = 30*time.Second, true
		var away atomic.Bool
		away.Store(true)
		st.keeps = func(p *Parcel) bool { return p.Queue.Name == "late" && away.Load() }
		st.refuse = func(p *Parcel) error {
			if p.Queue.Name == delayedQueue && p.Publishing.Message.Header[headerHave] != nil && away.Load() {
				return driver.ErrUnconfirmed // it cannot go back
			}
			return nil
		}
		c, err := New(t.Context(), st, Config{})
		if err != nil {
			t.Fatal(err)
		}
		b := &bench{t: t, w: st.world, f: st.fake, c: c}
		defer b.close()
		b.declare(routing.Topology{
			Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
			Queues:    []routing.Queue{{Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}, {Name: "late"}, {Name: "ok"}},
			Bindings:  []routing.Binding{{Exchange: "x", Queue: "full"}, {Exchange: "x", Queue: "late"}, {Exchange: "x", Queue: "ok"}},
		})
		b.publish("full", "in the way")
		b.delay("x", driver.Message{Body: []byte("m"), Header: driver.Header{"h": "v"}}, time.Second)
		time.Sleep(time.Second + delayedPatience + time.Second)
		st.arrive(t.Context())
		time.Sleep(time.Second)
		away.Store(false)
		time.Sleep(longestPause)
		synctest.Wait()
		b.want("ok", "m")
		b.want("late", "m")
		for _, queue := range []string{"ok", "late"} {
			if m := b.queue(queue).messages[0].Message; len(m.Header) != 1 || m.Delay != 0 {
				t.Errorf("%s got it with %v and a delay of %v", queue, m.Header, m.Delay)
			}
		}
		s := b.subscribe("full", 1)
		b.settle(s, b.receive(s), driver.Ack)
		if d := b.receive(s); string(d.Message.Body) != "m" || len(d.Message.Header) != 1 || d.Message.Delay != 0 {
			t.Errorf("the last one got %+v", d)
		}
	})
}
