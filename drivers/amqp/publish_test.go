package amqp

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestReturnsCorrelate mixes a thousand messages that are routed, unroutable
// and bound for a missing exchange, many of them with the same ID.
func TestReturnsCorrelate(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
		Queues:    []routing.Queue{{Name: "q"}, {Name: "r", Type: typeClassic}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "q", Key: "q"}, {Exchange: "x", Queue: "r", Key: "r"}},
	}))
	x, none := publisherOf(t, c, "x"), publisherOf(t, c, "none")
	quiet, err := c.Publisher(ctxOf(t), driver.PublisherConfig{Exchange: "x", DropUnroutable: true})
	check(t, err)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			var all []*driver.Publishing
			for i := range 125 {
				m := driver.Message{ID: fmt.Sprint("same-", i%5), Key: []string{"q", "r", "nowhere"}[(i+w)%3], Header: driver.Header{"n": int64(i)}}
				if i%4 == 0 {
					m.ID, m.Header = "", nil
				}
				p := publishing(m)
				all = append(all, p)
				from := x
				switch {
				case i%50 == 49:
					from = none
				case i%7 == 6:
					from = quiet
				}
				from.Publish(ctxOf(t), []*driver.Publishing{p}, false)
			}
			for i, p := range all {
				err := wait(t, p)
				var want error
				switch {
				case i%50 == 49:
					want = driver.ErrNotFound
				case i%7 == 6:
				case p.Message.Key == "nowhere":
					want = driver.ErrUnroutable
				}
				if !errors.Is(err, want) || want == nil && err != nil {
					t.Errorf("worker %d, message %d to %s: got %v, want %v", w, i, p.Message.Key, err, want)
				}
			}
		})
	}
	wg.Wait()
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	for slot, n := range c.out.ids {
		if n != 0 {
			t.Fatalf("slot %d still counts %d IDs in flight", slot, n)
		}
	}
}

// TestMissingExchangeIsolated deletes an exchange under its publisher: others
// on the same channel lose nothing.
func TestMissingExchangeIsolated(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}, {Name: "y", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "q"}, {Name: "r"}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "q"}, {Exchange: "y", Queue: "r"}},
	}))
	x, y := publisherOf(t, c, "x"), publisherOf(t, c, "y")
	check(t, publish(t, x, driver.Message{ID: "first"}))
	check(t, publish(t, y, driver.Message{ID: "first"}))
	check(t, c.DeleteExchange(ctxOf(t), "x", driver.DeleteOptions{}))
	var good []*driver.Publishing
	send := func(n int) {
		for i := range n {
			p := publishing(driver.Message{ID: fmt.Sprint(len(good))})
			good = append(good, p)
			y.Publish(ctxOf(t), []*driver.Publishing{p}, false)
			_ = i
		}
	}
	send(50)
	bad := publishing(driver.Message{ID: "bad"})
	x.Publish(ctxOf(t), []*driver.Publishing{bad}, false)
	send(50)
	if err := wait(t, bad); !errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrUnconfirmed) {
		t.Errorf("publish to the deleted exchange: %v", err)
	}
	for i, p := range good {
		if err := wait(t, p); err != nil {
			t.Errorf("message %d beside it: %v", i, err)
		}
	}
	s := subscribe(t, c, "r", 50)
	seen := map[string]bool{}
	for len(seen) < 101 {
		d := receive(t, s)
		seen[d.Message.ID] = true
		settle(t, s, d, driver.Ack)
	}
	if err := publish(t, x, driver.Message{}); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("a second publish to it: %v", err)
	}
	check(t, c.Declare(ctxOf(t), routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}}, Bindings: []routing.Binding{{Exchange: "x", Queue: "q"}}}))
	check(t, publish(t, x, driver.Message{}))
}

// TestPoison sends what closes the channel without naming its culprit, in the
// middle of what does not.
func TestPoison(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	p := publisherOf(t, c, "")
	var all []*driver.Publishing
	for i := range 60 {
		m := driver.Message{ID: fmt.Sprint(i), Key: "q"}
		if i%20 == 10 {
			m.UserID = "somebody else"
		}
		all = append(all, publishing(m))
	}
	p.Publish(ctxOf(t), all, true)
	for i, x := range all {
		err := wait(t, x)
		if bad := i%20 == 10; bad != errors.Is(err, driver.ErrPermission) || !bad && err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	long := string(make([]byte, 256))
	for _, m := range []driver.Message{{Key: "q", CorrelationID: long}, {Key: "q", Header: driver.Header{"h": string(make([]byte, 200_000))}}} {
		if err := publish(t, p, m); !errors.Is(err, driver.ErrTooLarge) {
			t.Errorf("what AMQP cannot carry: %v", err)
		}
	}
	check(t, publish(t, p, driver.Message{Key: "q", Body: make([]byte, 3<<20)}))
}

// TestPublishToQueue: a publisher to one queue reaches it whatever the bindings,
// also when it was made anew, and the message arrives as published to its
// exchange.
func TestPublishToQueue(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	c, other := openURL(t, url), openURL(t, url)
	p, err := c.Publisher(ctxOf(t), driver.PublisherConfig{Exchange: "not there", Queue: "q"})
	check(t, err)
	sent := driver.Message{ID: "m", Key: "k", Body: []byte("b"), TTL: time.Minute, UserID: c.settings.user, Header: driver.Header{"CC": []any{"cc"}, "polymq-queue": "x", "x-death": []any{map[string]any{"queue": "old", "reason": "rejected", "count": int64(1)}}}}
	for round := range 2 {
		if err := publish(t, p, sent); !errors.Is(err, driver.ErrUnroutable) {
			t.Errorf("round %d: no queue: %v", round, err)
		}
		check(t, other.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
		for _, delay := range []time.Duration{0, 20 * time.Millisecond} {
			m := sent
			m.Delay = delay
			check(t, publish(t, p, m))
			s := subscribe(t, other, "q", 1)
			if d := receive(t, s); d.Exchange != "not there" || d.Attempt != 1 || !reflect.DeepEqual(d.Message, sent) {
				t.Errorf("round %d, delay %v: got %+v\nwant %+v", round, delay, d, sent)
			} else {
				settle(t, s, d, driver.Ack)
			}
			check(t, s.Close(ctxOf(t)))
		}
		check(t, other.DeleteQueue(ctxOf(t), "q", driver.DeleteOptions{}))
	}
	check(t, p.Close(ctxOf(t)))
}

// TestCloseEndsScheduled: Close leaves nothing pending that waits for the
// broker to be asked about its way, whatever the connection does.
func TestCloseEndsScheduled(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	check(t, c.Declare(ctxOf(t), plainQ))
	p := publisherOf(t, c, "")
	link.Refuse(true)
	link.Cut()
	asked := publishing(driver.Message{Key: "q", Delay: time.Second})
	p.Publish(ctxOf(t), []*driver.Publishing{asked}, false)
	until(t, "it is being looked at", func() bool {
		c.scheduled.mu.Lock()
		defer c.scheduled.mu.Unlock()
		return len(c.scheduled.asked) == 1
	})
	waiting := publishing(driver.Message{Key: "q", Delay: time.Second})
	p.Publish(ctxOf(t), []*driver.Publishing{waiting}, false)
	check(t, p.Close(ctxOf(t)))
	late := publishing(driver.Message{Key: "q", Delay: time.Second})
	p.Publish(ctxOf(t), []*driver.Publishing{late}, false)
	for x, want := range map[*driver.Publishing]error{asked: driver.ErrUnconfirmed, waiting: driver.ErrUnconfirmed, late: driver.ErrClosed} {
		if !x.Resolved() || !errors.Is(x.Err(), want) {
			t.Errorf("after Close: resolved %v, %v, want %v", x.Resolved(), x.Err(), want)
		}
		x.Owner = &outcome{make(chan struct{})}
		x.Reset(&driver.Message{}, "another") // as its owner may, now
	}
	link.Refuse(false)
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q", Delay: time.Millisecond}))
	for _, x := range []*driver.Publishing{asked, waiting, late} {
		if x.Resolved() {
			t.Errorf("another message was resolved: %v", x.Err())
		}
	}
}

// TestScheduledAgainIsUnknown: what an earlier try may have stored is not
// refused, though its exchange has gone.
func TestScheduledAgainIsUnknown(t *testing.T) {
	c := open(t)
	p := publisherOf(t, c, "gone").(*publisher)
	for tried, want := range map[bool]error{false: driver.ErrNotFound, true: driver.ErrUnconfirmed} {
		x := publishing(driver.Message{Delay: time.Second})
		s := &scheduled{c: c, from: p, p: x, m: travelling(x.Message, "gone"), units: 1, tried: tried}
		c.schedule(s)
		if err := wait(t, x); !errors.Is(err, want) || tried && errors.Is(err, driver.ErrNotFound) {
			t.Errorf("tried before: %v; got %v, want %v", tried, err, want)
		}
	}
}
