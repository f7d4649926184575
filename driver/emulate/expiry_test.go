package emulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// graveyard is a queue q as told, whose dead letters come to the queue grave.
func graveyard(q routing.Queue) routing.Topology {
	q.Name = "q"
	q.DeadLetterExchange, q.DeadLetterKey = routing.DefaultExchange, "grave"
	return routing.Topology{Queues: []routing.Queue{q, {Name: "grave"}}}
}

// unswept keeps the janitor from its work.
func unswept(b *bench) {
	b.f.trouble = func(_ context.Context, call string, _ bool) error {
		if call == "sweep" {
			return errors.New("not now")
		}
		return nil
	}
}

// publishTTL publishes one message with a time of its own.
func (b *bench) publishTTL(key, body string, ttl time.Duration) {
	b.t.Helper()
	if err := publish(b.t.Context(), b.publisher(""), driver.Message{Key: key, Body: []byte(body), TTL: ttl}); err != nil {
		b.t.Fatal(err)
	}
}

// deaths are the reasons of a ready message's deaths, newest first.
func (b *bench) deaths(queue string, i int) (reasons []string) {
	b.t.Helper()
	ds, _ := b.ready(queue, i).Header[headerDeath].([]any)
	for _, d := range ds {
		d := d.(map[string]any)
		reasons = append(reasons, fmt.Sprint(d["queue"], " ", d["reason"], " ", d["count"]))
	}
	return reasons
}

// ready is a ready message.
func (b *bench) ready(queue string, i int) driver.Message {
	b.t.Helper()
	q := b.queue(queue)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if i >= len(q.messages) {
		b.t.Fatalf("queue %q has %d messages", queue, len(q.messages))
	}
	return q.messages[i].Message
}

// nothing checks that a queue has nothing, also not of what it gave up.
func (b *bench) nothing(queue string) {
	b.t.Helper()
	q := b.queue(queue)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if n := len(q.messages) + len(q.held) + len(q.swept) + len(q.later); n != 0 {
		b.t.Errorf("queue %q: %d ready, %d delayed, %d held, %d swept", queue, len(q.messages), len(q.later), len(q.held), len(q.swept))
	}
}

// TestExpiredIsNotHandedOut: what a consumer finds at the head and is expired
// goes to the dead letters, beside the prefetch, and what is behind it is
// delivered.
func TestExpiredIsNotHandedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		unswept(b)
		b.f.attentive = true
		b.declare(graveyard(routing.Queue{TTL: time.Second}))
		b.publish("q", "1", "2", "3")
		time.Sleep(500 * time.Millisecond)
		b.publish("q", "4")
		b.want("q", "1", "2", "3", "4")
		time.Sleep(500 * time.Millisecond)
		s := b.subscribe("q", 1)
		d := b.receive(s)
		if string(d.Message.Body) != "4" || d.Attempt != 1 {
			t.Errorf("received %q, attempt %d", d.Message.Body, d.Attempt)
		}
		synctest.Wait()
		b.want("grave", "1", "2", "3")
		if got := b.deaths("grave", 0); !slices.Equal(got, []string{"q expired 1"}) {
			t.Errorf("deaths %q", got)
		}
		if room := s.in.Room(); room != 0 || s.in.Prefetch() != 1 {
			t.Errorf("with one held there is room for %d, and a prefetch of %d", room, s.in.Prefetch())
		}
		b.settle(s, d, driver.Ack)
		b.nothing("q")
	})
}

// TestExpiredIsDropped: without a dead-letter exchange it is acknowledged.
func TestExpiredIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		unswept(b)
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", TTL: time.Second}}})
		b.publish("q", "1", "2")
		time.Sleep(time.Second)
		b.subscribe("q", 1)
		synctest.Wait()
		b.nothing("q")
	})
}

// TestPrefetchedDoesNotExpire: what is put in time is delivered whenever it is
// taken; given back, its time is what it was.
func TestPrefetchedDoesNotExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.f.attentive = true
		b.declare(graveyard(routing.Queue{TTL: time.Second}))
		s := b.subscribe("q", 2)
		b.publish("q", "1", "2")
		time.Sleep(time.Minute)
		first, second := b.receive(s), b.receive(s)
		b.settle(s, first, driver.Nack)
		synctest.Wait()
		b.want("grave", "1")
		b.settle(s, second, driver.Ack)
		b.want("grave", "1")
	})
}

// TestHeadOnly: a message behind one that lives is not expired before that has
// gone, however old it is, and it is not delivered then.
func TestHeadOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(graveyard(routing.Queue{}))
		b.publish("q", "lives")
		b.publishTTL("q", "short", 100*time.Millisecond)
		b.publishTTL("q", "long", time.Hour)
		time.Sleep(time.Minute)
		b.want("q", "lives", "short", "long")
		b.want("grave")
		s := b.subscribe("q", 1)
		b.settle(s, b.receive(s), driver.Ack)
		d := b.receive(s)
		if string(d.Message.Body) != "long" || d.Message.TTL != time.Hour {
			t.Errorf("received %q with %v", d.Message.Body, d.Message.TTL)
		}
		synctest.Wait()
		b.want("grave", "short")
		dead := b.ready("grave", 0)
		death := dead.Header[headerDeath].([]any)[0].(map[string]any)
		if death["original-expiration"] != "100" || dead.TTL != 0 {
			t.Errorf("with a time of %v, the death is %v", dead.TTL, death)
		}
		b.settle(s, d, driver.Reject)
		synctest.Wait()
		death = b.ready("grave", 1).Header[headerDeath].([]any)[0].(map[string]any)
		if death["reason"] != "rejected" || death["original-expiration"] != "3600000" {
			t.Errorf("the death of a rejected one is %v", death)
		}
	})
}

// TestExpiryAnyhow: whatever consumers do, each message is either delivered in
// time or dead-lettered once.
func TestExpiryAnyhow(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			b := newBench(t)
			defer b.close()
			b.f.attentive = true
			b.declare(graveyard(routing.Queue{TTL: 3 * time.Second}))
			ms := func(n int) time.Duration { return time.Duration(1+rng.IntN(n)) * time.Millisecond }
			want := map[string]int{}
			var pubs sync.WaitGroup
			for i := range 60 {
				body, ttl := fmt.Sprint(i), time.Duration(0)
				if rng.IntN(2) == 0 {
					ttl = ms(2000)
				}
				want[body] = 1
				after := ms(2000)
				pubs.Go(func() { time.Sleep(after); b.publishTTL("q", body, ttl) })
			}
			got := map[string]int{}
			for range 8 {
				time.Sleep(ms(400))
				s := b.subscribe("q", 1)
				for range rng.IntN(12) {
					ctx, cancel := context.WithTimeout(t.Context(), ms(300))
					var buf [1]*driver.Delivery
					_, err := s.Receive(ctx, buf[:])
					cancel()
					if err != nil {
						break
					}
					d := buf[0].Tag.(*Delivery)
					put := d.until.Add(-s.in.lease) // not extended yet
					if end := s.q.Over(&d.Message, d.Stored); !put.Before(end) {
						t.Errorf("seed %d: given to a consumer %v after its end", seed, put.Sub(end))
					}
					if rng.IntN(3) > 0 {
						got[string(d.Message.Body)]++
						b.settle(s, buf[0], driver.Ack)
					} else {
						b.settle(s, buf[0], driver.Nack)
					}
				}
				if err := s.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			pubs.Wait()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			b.nothing("q")
			for _, body := range b.bodies("grave") {
				got[body]++
			}
			if !maps.Equal(got, want) {
				t.Errorf("seed %d: %v", seed, got)
			}
		})
	}
}

// TestExpiredCircle: what only time and limits move round is dropped when it
// would come back; a rejection between starts anew.
func TestExpiredCircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{
			{Name: "self", TTL: time.Second, DeadLetterExchange: routing.DefaultExchange},
			{Name: "one", TTL: time.Second, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "two"},
			{Name: "two", TTL: 100 * time.Second, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "one"},
		}})
		b.publish("self", "m")
		b.publish("one", "m")
		time.Sleep(2 * time.Second)
		b.want("self")
		b.want("two", "m")
		s := b.subscribe("two", 1)
		b.settle(s, b.receive(s), driver.Reject)
		synctest.Wait()
		b.want("one", "m")
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Second)
		b.want("two", "m")
		if got := b.deaths("two", 0); !slices.Equal(got, []string{"one expired 2", "two rejected 1"}) {
			t.Errorf("deaths %q", got)
		}
		time.Sleep(200 * time.Second)
		for _, name := range []string{"self", "one", "two"} {
			b.nothing(name)
		}
	})
}

// TestInboxExpired: expired ones are beside the prefetch up to a bound; beyond
// it they count, so that memory does not grow, and there is room again when
// they have gone.
func TestInboxExpired(t *testing.T) {
	in := newInbox(&Queue{Queue: routing.Queue{TTL: time.Second}}, 2, 0)
	old := time.Now().Add(-time.Minute)
	n := 0
	for in.Room() > 0 {
		if over := in.Put(&Delivery{Stored: old}); len(over) > 0 {
			t.Fatal("no room where there was")
		}
		n++
	}
	if n != maxAside+2 {
		t.Errorf("%d are put, want %d", n, maxAside+2)
	}
	more := []*Delivery{{Stored: old}, {Stored: time.Now()}}
	if over := in.Put(more...); !slices.Equal(over, more) {
		t.Errorf("%d are beyond the prefetch, want 2", len(over))
	}
	gone := in.takeExpired()
	if len(gone) != n || len(in.takeExpired()) != 0 {
		t.Errorf("%d expired, want %d, once", len(gone), n)
	}
	if ds := in.Prefetched(); len(ds) != 0 {
		t.Errorf("a consumer that drains gives back %d that are being given up", len(ds))
	}
	for _, d := range gone {
		if !in.release(d) {
			t.Fatal("it was not held")
		}
	}
	if over := in.Put(&Delivery{Stored: old}, &Delivery{Stored: time.Now()}, &Delivery{Stored: time.Now()}, &Delivery{Stored: old}); len(over) != 0 || in.Room() != 0 {
		t.Errorf("%d beyond the prefetch, and room for %d", len(over), in.Room())
	}
	in = newInbox(in.q, 8, 0)
	in.Put(&Delivery{Stored: old})
	select {
	case <-in.More():
	default:
		t.Error("a store that used up the room does not hear that there is some")
	}
	in.Put(&Delivery{Stored: time.Now()}, &Delivery{Stored: time.Now()}, &Delivery{Stored: old})
	in.Fail(driver.ErrClosed)
	if prefetched, handed := in.Drain(); len(prefetched) != 4 || len(handed) != 0 || in.aside != 0 {
		t.Errorf("%d and %d are left, %d of them aside", len(prefetched), len(handed), in.aside)
	}
}
