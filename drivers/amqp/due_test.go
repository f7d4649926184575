package amqp

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func TestDelayedToMissingExchange(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}}}))
	p, q := publisherOf(t, c, "missing"), publisherOf(t, c, "x")
	for range 2 {
		if err := publish(t, p, driver.Message{Delay: time.Hour}); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		check(t, publish(t, q, driver.Message{Delay: time.Hour}))
	}
	check(t, c.DeleteExchange(ctxOf(t), "x", driver.DeleteOptions{}))
	if err := publish(t, q, driver.Message{Delay: time.Hour}); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("deleted since: %v", err)
	}
}

// TestDueAndUnroutable: the alternate exchange takes it, else polymq.unroutable,
// which shows where it was published.
func TestDueAndUnroutable(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct, Alternate: "alt"}, {Name: "alt", Kind: routing.Fanout}, {Name: "y", Kind: routing.Direct}, {Name: "gone", Kind: routing.Direct}},
		Queues:    []routing.Queue{{Name: "q"}},
		Bindings:  []routing.Binding{{Exchange: "alt", Queue: "q"}},
	}))
	const delay = 300 * time.Millisecond
	message := func(id string) driver.Message {
		return driver.Message{ID: id, Key: "k", Delay: delay, TTL: 200 * time.Millisecond, Header: driver.Header{"h": "v", "polymq-mine": "v"}, Body: []byte(id)}
	}
	check(t, publish(t, publisherOf(t, c, "gone"), message("gone")))
	check(t, c.DeleteExchange(ctxOf(t), "gone", driver.DeleteOptions{}))
	check(t, publish(t, publisherOf(t, c, "y"), message("y")))
	m := message("x")
	m.TTL = 0
	check(t, publish(t, publisherOf(t, c, "x"), m))
	if d := receive(t, subscribe(t, c, "q", 1)); d.Exchange != "x" || d.Message.ID != "x" {
		t.Errorf("the alternate's queue got %+v", d)
	}
	until(t, "polymq.unroutable is there", func() bool {
		_, err := c.kindOf(ctxOf(t), driver.UnroutableQueue)
		return err == nil
	})
	s := subscribe(t, c, driver.UnroutableQueue, 10)
	got := map[string]bool{}
	for range 2 {
		d := receive(t, s)
		want := message(d.Exchange)
		want.Delay = 0
		if !reflect.DeepEqual(d.Message, want) {
			t.Errorf("got %+v, want %+v", d, want)
		}
		got[d.Exchange] = true
		settle(t, s, d, driver.Ack)
	}
	if !got["y"] || !got["gone"] {
		t.Errorf("in polymq.unroutable came messages of %v", got)
	}
	// It is shown, is an ordinary queue, and is made again when it is missing.
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: driver.UnroutableQueue}}}))
	if stands, err := c.Topology(ctxOf(t)); err != nil {
		t.Error(err)
	} else if n := len(stands.Queues); n != 2 || stands.Queues[0].Name != driver.UnroutableQueue || len(stands.Exchanges) != 3 || len(stands.Bindings) != 1 {
		t.Errorf("the topology is %+v", stands)
	}
	check(t, s.Close(ctxOf(t)))
	check(t, c.DeleteQueue(ctxOf(t), driver.UnroutableQueue, driver.DeleteOptions{}))
	check(t, publish(t, publisherOf(t, c, ""), message("again")))
	until(t, "polymq.unroutable is there again", func() bool {
		_, err := c.kindOf(ctxOf(t), driver.UnroutableQueue)
		return err == nil
	})
	if d := receive(t, subscribe(t, c, driver.UnroutableQueue, 10)); d.Message.ID != "again" || d.Exchange != "" {
		t.Errorf("got %+v", d)
	}
}
