package emulate

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestDeadLetterNowhere: while its exchange is not there, or routes nowhere, a
// dead letter waits, beside the prefetch, and is told of once. A subscriber
// that closes gives it back.
func TestDeadLetterNowhere(t *testing.T) {
	for _, dlx := range []string{"later", "x"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			log := b.log()
			b.declare(plain)
			b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: dlx, DeadLetterKey: "dead"}}})
			b.publish("q", "1", "2", "3", "4")
			s := b.subscribe("q", 1)
			for range 3 {
				b.settle(s, b.receive(s), driver.Reject)
				synctest.Wait()
				select {
				case <-s.in.More():
					b.give("q")
				default:
					t.Fatal("the store hears of no room")
				}
			}
			d := b.receive(s)
			time.Sleep(5 * time.Minute)
			synctest.Wait()
			if n := len(b.queue("q").held); n != 4 {
				t.Errorf("%d are held, want 4", n)
			}
			if n := strings.Count(log.String(), "nowhere to go"); n != 1 || !strings.Contains(log.String(), "BestEffortDeadLetter") {
				t.Errorf("logged %d times:\n%s", n, log)
			}
			b.declare(routing.Topology{
				Exchanges: []routing.Exchange{{Name: "later", Kind: routing.Direct}},
				Bindings:  []routing.Binding{{Exchange: dlx, Queue: "a", Key: "dead"}},
			})
			time.Sleep(2 * time.Second)
			synctest.Wait()
			b.want("a", "1", "2", "3")
			if room := s.in.Room(); room != 0 || s.in.Prefetch() != 1 {
				t.Errorf("there is room for %d, and a prefetch of %d", room, s.in.Prefetch())
			}
			b.settle(s, d, driver.Ack)
			if err := b.c.Unbind(t.Context(), []routing.Binding{{Exchange: dlx, Queue: "a", Key: "dead"}}); err != nil {
				t.Fatal(err)
			}
			b.publish("q", "5")
			b.settle(s, b.receive(s), driver.Reject)
			time.Sleep(time.Second)
			synctest.Wait()
			b.want("q")
			if err := s.Close(t.Context()); err != nil {
				t.Error(err)
			}
			b.want("q", "5")
			if n := strings.Count(log.String(), "nowhere to go"); n != 2 {
				t.Errorf("logged %d times after it went well meanwhile:\n%s", n, log)
			}
		})
	}
}

// TestCloseWithNowhereToGo: Close does not wait for dead letters that nothing
// takes once each has been tried.
func TestCloseWithNowhereToGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: "missing"}}})
		s := b.subscribe("q", 60)
		for i := range 60 {
			b.publish("q", fmt.Sprint(i))
		}
		for range 60 {
			b.settle(s, b.receive(s), driver.Reject)
		}
		start := time.Now()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took >= drainTime {
			t.Errorf("Close took %v", took)
		}
		if q := b.queue("q"); len(q.messages) != 60 {
			t.Errorf("%d messages are back, want 60", len(q.messages))
		}
	})
}

// TestCloseWithDeadLetterOnItsWay: Close waits for one that has a way at last, and
// does not give it back as well.
func TestCloseWithDeadLetterOnItsWay(t *testing.T) {
	for range 20 { // what the keeper hears of first is luck
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			b.declare(plain)
			b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: "later"}}})
			b.publish("q", "m")
			s := b.subscribe("q", 1)
			b.settle(s, b.receive(s), driver.Reject)
			synctest.Wait()
			stored := make(chan struct{})
			b.f.point = func(what string) {
				if what == "appended" {
					<-stored
				}
			}
			b.declare(routing.Topology{
				Exchanges: []routing.Exchange{{Name: "later", Kind: routing.Fanout}},
				Bindings:  []routing.Binding{{Exchange: "later", Queue: "a"}},
			})
			time.Sleep(2 * time.Second) // it is tried again
			ended := make(chan error, 1)
			go func() { ended <- s.Close(t.Context()) }()
			synctest.Wait()
			close(stored)
			if err := <-ended; err != nil {
				t.Error(err)
			}
			b.want("a", "m")
			b.want("q")
		})
	}
}

// TestDeadLetterDropped: only with BestEffortDeadLetter it is dropped, and
// that is told.
func TestDeadLetterDropped(t *testing.T) {
	for _, dlx := range []string{"none", "x"} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			log := b.log()
			b.declare(plain)
			b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: dlx, BestEffortDeadLetter: true}}})
			b.publish("q", "m", "n")
			s := b.subscribe("q", 1)
			b.settle(s, b.receive(s), driver.Reject)
			b.settle(s, b.receive(s), driver.Reject)
			synctest.Wait()
			if q := b.queue("q"); len(q.messages)+len(q.held) != 0 {
				t.Errorf("%d ready, %d held", len(q.messages), len(q.held))
			}
			if n := strings.Count(log.String(), "was dropped"); n != 1 {
				t.Errorf("logged %d times:\n%s", n, log)
			}
		})
	}
}

// TestSetAside: what is held beside the prefetch is bounded.
func TestSetAside(t *testing.T) {
	for _, size := range []int{1, maxAsideBytes/4 + 1} {
		in := newInbox(&Queue{}, 2, 0)
		body := make([]byte, size)
		n := 0
		for in.Room() > 0 {
			d := &Delivery{}
			d.Message.Body = body
			in.Put(d)
			var buf [1]*driver.Delivery
			if _, err := in.take(t.Context(), buf[:]); err != nil {
				t.Fatal(err)
			}
			in.setAside(d)
			n++
		}
		if want := min(maxAside, max(maxAsideBytes/size, 1)) + 2; n != want {
			t.Errorf("%d of %d bytes are held, want %d", n, size, want)
		}
		in.Drain()
		if in.aside != 0 || in.asideBytes != 0 || in.Room() != 2 {
			t.Errorf("afterwards %d with %d bytes are aside, and there is room for %d", in.aside, in.asideBytes, in.Room())
		}
	}
}

// TestDeadLetterFails: while the target refuses, the message is held, and
// tried again; a subscriber that closes gives it back.
func TestDeadLetterFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "grave"}, {Name: "grave"}}})
		s := b.subscribe("q", 1)
		b.publish("q", "1", "2")
		synctest.Wait()
		fails, ids := 0, map[string]bool{}
		b.f.refuse = func(p *Parcel) error {
			if p.Queue.Name != "grave" {
				return nil
			}
			ids[p.DedupID] = true
			if fails++; fails <= 3 {
				return driver.ErrRejected
			}
			return nil
		}
		b.settle(s, b.receive(s), driver.Reject)
		time.Sleep(10 * time.Millisecond)
		b.want("grave")
		time.Sleep(time.Minute)
		synctest.Wait()
		b.want("grave", "1")
		if len(ids) != 1 || fails != 4 {
			t.Errorf("%d tries under the IDs %v", fails, ids)
		}
		fails = -1000
		b.settle(s, b.receive(s), driver.Reject)
		time.Sleep(time.Second)
		synctest.Wait()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		b.want("q", "2")
	})
}

// give has the store put into the inbox what there is room for.
func (b *bench) give(queue string) {
	q := b.queue(queue)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	q.give()
}

// split is a topology whose dead letters go to two queues, of which one has
// room for one message.
func split(q routing.Queue) routing.Topology {
	q.Name, q.DeadLetterExchange = "q", "dlx"
	return routing.Topology{
		Exchanges: []routing.Exchange{{Name: "dlx", Kind: routing.Fanout}},
		Queues:    []routing.Queue{q, {Name: "grave"}, {Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}},
		Bindings:  []routing.Binding{{Exchange: "dlx", Queue: "grave"}, {Exchange: "dlx", Queue: "full"}},
	}
}

// TestDeadLetterHalf: of two targets the one that takes a dead letter gets it
// once, however long the other refuses, also where its hold is renewed
// meanwhile.
func TestDeadLetterHalf(t *testing.T) {
	for how, q := range map[string]routing.Queue{"rejected": {}, "expired": {TTL: time.Second}} {
		t.Run(how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				defer b.close()
				b.f.attentive = true
				b.declare(split(q))
				b.publish("full", "in the way")
				b.publish("q", "m")
				if how == "rejected" {
					s := b.subscribe("q", 1)
					b.settle(s, b.receive(s), driver.Reject)
				}
				time.Sleep(10 * time.Minute)
				synctest.Wait()
				b.want("grave", "m")
				s := b.subscribe("full", 1)
				b.settle(s, b.receive(s), driver.Ack)
				if d := b.receive(s); string(d.Message.Body) != "m" {
					t.Errorf("the other got %q", d.Message.Body)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				b.want("grave", "m")
				b.nothing("q")
			})
		})
	}
}

// TestDeadLetterRefused: a subscriber goes on where the queue for its dead
// letters is full.
func TestDeadLetterRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.f.attentive = true
		log := b.log()
		b.declare(split(routing.Queue{}))
		b.publish("full", "in the way")
		const n = 20
		for i := range n {
			b.publish("q", fmt.Sprint(i))
		}
		s := b.subscribe("q", 2)
		for range n {
			b.settle(s, b.receive(s), driver.Reject)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := len(b.bodies("grave")); got != n {
			t.Errorf("%d of %d dead letters have arrived", got, n)
		}
		if n := strings.Count(log.String(), "could not be dead-lettered"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log)
		}
	})
}

// TestPushedOutNowhere: what a limit pushes out does not wait for an exchange
// that is not there.
func TestPushedOutNowhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		log := b.log()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", MaxLength: 2, DeadLetterExchange: "missing"}}})
		for i := range 2000 {
			b.publish("q", fmt.Sprint(i))
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		b.want("q", "1998", "1999")
		if n := len(b.queue("q").swept); n != 0 {
			t.Errorf("%d are kept beyond the limit", n)
		}
		if n := strings.Count(log.String(), "was dropped"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log)
		}
	})
}
