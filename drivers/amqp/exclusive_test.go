package amqp

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func bindingOf(exchange, queue, key string) routing.Binding {
	return routing.Binding{Exchange: exchange, Queue: queue, Key: key}
}

// TestExclusive: nobody else can do anything with it but publish.
func TestExclusive(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	a, b := openURL(t, url), openURL(t, url)
	mine := routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}}, Queues: []routing.Queue{{Name: "mine", Exclusive: true}}}
	check(t, a.Declare(ctxOf(t), mine))
	check(t, a.Declare(ctxOf(t), mine))
	check(t, a.Bind(ctxOf(t), []routing.Binding{bindingOf("x", "mine", "k")}))
	for what, err := range map[string]error{
		"Declare":     b.Declare(ctxOf(t), mine),
		"Bind":        b.Bind(ctxOf(t), []routing.Binding{bindingOf("x", "mine", "k")}),
		"Unbind":      b.Unbind(ctxOf(t), []routing.Binding{bindingOf("x", "mine", "k")}),
		"DeleteQueue": b.DeleteQueue(ctxOf(t), "mine", driver.DeleteOptions{}),
		"IfUnused":    b.DeleteQueue(ctxOf(t), "mine", driver.DeleteOptions{IfUnused: true}),
		"Purge":       second(b.Purge(ctxOf(t), "mine")),
		"Inspect":     second(b.Inspect(ctxOf(t), "mine")),
		"Subscriber":  second(b.Subscriber(ctxOf(t), driver.SubscriberConfig{Queue: "mine", Prefetch: 1})),
	} {
		if !errors.Is(err, driver.ErrInUse) {
			t.Errorf("%s: %v", what, err)
		}
	}
	check(t, b.Verify(ctxOf(t), mine))
	b.management = nil
	check(t, b.Verify(ctxOf(t), routing.Topology{Queues: mine.Queues}))
	check(t, publish(t, publisherOf(t, b, ""), driver.Message{Key: "mine", ID: "m"}))
	s := subscribe(t, a, "mine", 1)
	if d := receive(t, s); d.Message.ID != "m" || d.Attempt != 0 {
		t.Errorf("got %+v", d)
	}
	check(t, a.Close(ctxOf(t)))
	check(t, b.Declare(ctxOf(t), mine)) // ended with its connection
	// Whether a queue is exclusive is part of what it is.
	for _, q := range []routing.Queue{{Name: "mine", Type: typeClassic}, {Name: "other", Exclusive: true}} {
		if q.Name == "other" {
			check(t, b.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "other", Type: typeClassic}}}))
		}
		if err := b.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{q}}); !errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrInUse) {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestExclusiveComesBack: after a lost connection it stands again, empty, with
// the bindings that this connection made and still wants, before anything else
// is done with it.
func TestExclusiveComesBack(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	link := testbroker.Proxy(t, url)
	c, other := openURL(t, link.URL()), openURL(t, url)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}, {Name: "gone", Kind: routing.Fanout}, {Name: "h", Kind: routing.Headers}},
		Queues:    []routing.Queue{{Name: "mine", Exclusive: true, MaxLength: 5}, {Name: "temporary", Exclusive: true, AutoDelete: true}, {Name: "deleted", Exclusive: true}},
		Bindings:  []routing.Binding{bindingOf("x", "mine", "one"), bindingOf("x", "mine", "two"), bindingOf("gone", "mine", ""), bindingOf("x", "temporary", "one")},
	}))
	match := routing.Binding{Exchange: "h", Queue: "mine", Args: map[string]any{"a": 1}}
	check(t, c.Bind(ctxOf(t), []routing.Binding{bindingOf("x", "mine", "three"), match}))
	check(t, c.Unbind(ctxOf(t), []routing.Binding{bindingOf("x", "mine", "two")}))
	check(t, c.DeleteQueue(ctxOf(t), "deleted", driver.DeleteOptions{}))
	check(t, other.DeleteExchange(ctxOf(t), "gone", driver.DeleteOptions{}))
	p := publisherOf(t, other, "x")
	send := func(key string, want error) {
		t.Helper()
		if err := publish(t, p, driver.Message{Key: key, ID: key}); !errors.Is(err, want) {
			t.Errorf("publish %s: %v, want %v", key, err, want)
		}
	}
	s := subscribe(t, c, "mine", 1)
	tmp := subscribe(t, c, "temporary", 1)
	send("three", nil)
	send("three", nil)
	held := receive(t, s)
	link.Cut()
	for _, s := range []driver.Subscriber{s, tmp} {
		if _, err := s.Receive(ctxOf(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("Receive: %v", err)
		}
		check(t, second(0, s.Close(ctxOf(t))))
	}
	if err := s.Settle(ctxOf(t), held, driver.Ack, 0); !errors.Is(err, driver.ErrLost) {
		t.Errorf("Ack: %v", err)
	}
	s, tmp = subscribe(t, c, "mine", 1), subscribe(t, c, "temporary", 1)
	send("two", driver.ErrUnroutable)
	send("one", nil)
	check(t, publish(t, publisherOf(t, other, "h"), driver.Message{ID: "h", Header: driver.Header{"a": int64(1)}}))
	for _, id := range []string{"one", "h"} {
		d := receive(t, s)
		if d.Message.ID != id {
			t.Errorf("got %+v, want %s", d, id)
		}
		settle(t, s, d, driver.Ack)
	}
	settle(t, tmp, receive(t, tmp), driver.Ack)
	if err := second(c.Subscriber(ctxOf(t), driver.SubscriberConfig{Queue: "deleted", Prefetch: 1})); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("the deleted one: %v", err)
	}
	// Closed, an auto-delete one is gone for good.
	check(t, tmp.Close(ctxOf(t)))
	link.Cut()
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "mine", Exclusive: true, MaxLength: 5}}}))
	if err := second(c.Subscriber(ctxOf(t), driver.SubscriberConfig{Queue: "temporary", Prefetch: 1})); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("the temporary one: %v", err)
	}
	send("one", nil)
	if n, err := c.Purge(ctxOf(t), "mine"); n != 1 || err != nil {
		t.Errorf("purged %d, %v", n, err)
	}
}

// TestExclusiveEndedByItself: one that has expired and is declared otherwise is
// made anew as the last declaration says, without the bindings of the first.
func TestExclusiveEndedByItself(t *testing.T) {
	t.Parallel()
	url := testbroker.URL(t, "amqp")
	link := testbroker.Proxy(t, url)
	c, other := openURL(t, link.URL()), openURL(t, url)
	p, to := publisherOf(t, other, "x"), publisherOf(t, other, "")
	const expires = time.Second
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "other", Exclusive: true, Expires: expires}, {Name: "same", Exclusive: true, Expires: expires}, {Name: "shared", Exclusive: true, Expires: expires}},
		Bindings:  []routing.Binding{bindingOf("x", "other", "old"), bindingOf("x", "same", "old")},
	}))
	for _, name := range []string{"other", "same", "shared"} {
		until(t, name+" has expired", func() bool { // asking for it would be a use
			return errors.Is(publish(t, to, driver.Message{Key: name}), driver.ErrUnroutable)
		})
	}
	anew := routing.Topology{
		Queues:   []routing.Queue{{Name: "other", Exclusive: true, MaxLength: 3}, {Name: "same", Exclusive: true, Expires: expires}, {Name: "shared", Type: typeClassic}},
		Bindings: []routing.Binding{bindingOf("x", "other", "other"), bindingOf("x", "same", "same")},
	}
	check(t, c.Declare(ctxOf(t), anew))
	if c.exclusives.get("shared") != nil {
		t.Error("a queue that is not exclusive any more would be made anew")
	}
	link.Cut()
	back := map[string]bool{}
	until(t, "both and their bindings are back", func() bool {
		for _, key := range []string{"other", "same"} {
			back[key] = back[key] || publish(t, p, driver.Message{Key: key}) == nil // before it expires again
		}
		return back["other"] && back["same"]
	})
	if err := publish(t, p, driver.Message{Key: "old"}); !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("the old bindings are back: %v", err)
	}
	check(t, c.Declare(ctxOf(t), anew))
}

// TestExclusiveStillLocked: the broker has not noticed yet that the old
// connection is lost.
func TestExclusiveStillLocked(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	link := testbroker.Proxy(t, url)
	c, owner := openURL(t, link.URL()+"&heartbeat=1s"), openURL(t, url)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "mine", Exclusive: true}}}))
	link.Refuse(true)
	link.Cut()
	// Another takes the lost one's place for a while, as the lost one would.
	until(t, "the broker has noticed", func() bool {
		return owner.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "mine", Exclusive: true}}}) == nil
	})
	link.Refuse(false)
	waits := make(chan error, 1)
	go func() {
		s, err := c.Subscriber(ctxOf(t), driver.SubscriberConfig{Queue: "mine", Prefetch: 1})
		if err == nil {
			defer s.Close(ctxOf(t))
			err = publish(t, publisherOf(t, c, ""), driver.Message{Key: "mine"})
		}
		waits <- err
	}()
	check(t, c.Health(ctxOf(t)))
	ctx, cancel := context.WithTimeout(ctxOf(t), 300*time.Millisecond)
	defer cancel()
	if _, err := c.Purge(ctx, "mine"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Purge: %v", err)
	}
	select {
	case err := <-waits:
		t.Errorf("Subscriber did not wait: %v", err)
	default:
	}
	check(t, owner.Close(ctxOf(t)))
	check(t, <-waits)
}

// TestAutoDelete: it goes with its last subscriber, and not before it has one.
func TestAutoDelete(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	link := testbroker.Proxy(t, url)
	c, other := openURL(t, link.URL()), openURL(t, url)
	q := routing.Topology{Queues: []routing.Queue{{Name: "q", AutoDelete: true}}}
	gone := func() bool { return errors.Is(other.Verify(ctxOf(t), q), driver.ErrNotFound) }
	check(t, other.Declare(ctxOf(t), q))
	check(t, other.Declare(ctxOf(t), q))
	check(t, c.Verify(ctxOf(t), q))
	one, two := subscribe(t, c, "q", 1), subscribe(t, other, "q", 1)
	check(t, one.Close(ctxOf(t)))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q"}))
	receive(t, two)
	check(t, two.Close(ctxOf(t)))
	until(t, "it is deleted", gone)
	check(t, other.Declare(ctxOf(t), q))
	one = subscribe(t, c, "q", 1)
	link.Refuse(true)
	link.Cut()
	until(t, "it is deleted after a crash", gone)
	link.Refuse(false)
	if _, err := one.Receive(ctxOf(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Receive: %v", err)
	}
}
