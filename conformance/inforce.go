package conformance

import (
	"strconv"
	"sync"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var inForceRows = []row{
	{promise: 9, name: "bind", run: bindInForce},
	{promise: 9, name: "unbind", run: unbindInForce},
	{promise: 9, name: "rounds", run: inForceRounds},
	{promise: 9, name: "under-load", run: inForceUnderLoad},
	{promise: 9, name: "declare", run: declareInForce},
	{promise: 9, name: "between-exchanges", run: exchangesInForce},
	{promise: 9, name: "delete-queue", run: deleteQueueInForce},
	{promise: 9, name: "delete-exchange", run: deleteExchangeInForce},
	{promise: 9, name: "delete-conditions", run: deleteConditions},
}

func bindInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "q", "r")
	e.mustBe(e.try(other, "x", msg("0", "")), "Publish before the first binding", polymq.ErrUnroutable)
	var want []string
	for i := range 20 {
		key := strconv.Itoa(i)
		e.must(c.Bind(e.ctx, to("x", "q", key)), "Bind")
		e.publish(other, "x", msg(key, key))
		want = append(want, key)
	}
	// To a message that already has a queue, a new binding matters as much.
	e.must(c.Bind(e.ctx, to("x", "r", "#")), "Bind")
	e.publish(other, "x", msg("3", "to both"))
	e.has(c, "q", append(want, "to both")...)
	e.has(c, "r", "to both")
}

func unbindInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", "r", to("x", "q", "k"), to("x", "r", "k"))
	e.publish(other, "x", msg("k", "to both"))
	e.must(c.Unbind(e.ctx, to("x", "q", "k")), "Unbind")
	e.publish(other, "x", msg("k", "to r"))
	e.must(c.Unbind(e.ctx, to("x", "r", "k")), "Unbind")
	e.mustBe(e.try(other, "x", msg("k", "to none")), "Publish after the last Unbind", polymq.ErrUnroutable)
	e.has(c, "q", "to both")
	e.has(c, "r", "to both", "to r")
}

// inForceRounds binds and unbinds from one connection, and publishes from two
// others right after each return.
func inForceRounds(e *env) {
	c, near, far := e.open(), e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q")
	var want []string
	for i := range 200 {
		p, where := near, "one connection"
		if i%2 == 1 {
			p, where = far, "another connection"
		}
		e.must(c.Bind(e.ctx, to("x", "q", "k")), "Bind, round %d", i)
		if err := e.try(p, "x", msg("k", strconv.Itoa(i))); err != nil {
			e.Fatalf("round %d: Bind has returned, then a Publish from %s: %v", i, where, err)
		}
		want = append(want, strconv.Itoa(i))
		e.must(c.Unbind(e.ctx, to("x", "q", "k")), "Unbind, round %d", i)
		if err := e.try(p, "x", msg("k", "misrouted")); !is(err, polymq.ErrUnroutable) {
			e.Fatalf("round %d: Unbind has returned, then a Publish from %s: got %v, want ErrUnroutable", i, where, err)
		}
	}
	e.has(c, "q", want...)
}

// inForceUnderLoad does the same beside publishers that are never idle, whose
// batches and round trips the publish that counts may join.
func inForceUnderLoad(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", "noise", to("x", "noise", "noise"))
	p := e.publisher(other, "x")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := p.Publish(e.ctx, msg("noise", "")); err != nil {
					e.Errorf("Publish beside the rounds: %v", err)
					return
				}
			}
		})
	}
	for i := range 40 {
		e.must(c.Bind(e.ctx, to("x", "q", "k")), "Bind, round %d", i)
		if err := p.Publish(e.short(), msg("k", "")); err != nil {
			e.Fatalf("round %d: Bind has returned, then Publish: %v", i, err)
		}
		e.must(c.Unbind(e.ctx, to("x", "q", "k")), "Unbind, round %d", i)
		if err := p.Publish(e.short(), msg("k", "")); !is(err, polymq.ErrUnroutable) {
			e.Fatalf("round %d: Unbind has returned, then Publish: got %v, want ErrUnroutable", i, err)
		}
	}
}

func declareInForce(e *env) {
	c, other := e.open(), e.open()
	for i := range 15 {
		x, q := "x"+strconv.Itoa(i), "q"+strconv.Itoa(i)
		e.mustBe(e.try(other, x, msg("k", "")), "Publish before Declare", polymq.ErrNotFound)
		e.mustBe(e.try(other, "", msg(q, "")), "Publish to the default exchange before Declare", polymq.ErrUnroutable)
		e.declare(c, routing.Exchange{Name: x, Kind: routing.Fanout}, q, to(x, q, ""))
		e.publish(other, x, msg("k", "1"))
		e.publish(other, "", msg(q, "2"))
		e.has(other, q, "1", "2")
	}
}

func exchangesInForce(e *env) {
	c, other := e.open(), e.open()
	link := routing.Binding{Exchange: "in", ToExchange: "out", Key: "k"}
	e.declare(c, routing.Exchange{Name: "in", Kind: routing.Direct}, routing.Exchange{Name: "out", Kind: routing.Fanout}, "q", to("out", "q", ""))
	for i := range 20 {
		e.must(c.Bind(e.ctx, link), "Bind")
		e.publish(other, "in", msg("k", strconv.Itoa(i)))
		e.must(c.Unbind(e.ctx, link), "Unbind")
		e.mustBe(e.try(other, "in", msg("k", "")), "Publish after Unbind", polymq.ErrUnroutable)
	}
	e.has(c, "q", bodies(numbered(20, "", ""))...)
}

func deleteQueueInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "stays", to("x", "stays", ""))
	var want []string
	for i := range 10 {
		e.declare(c, "q", to("x", "q", ""))
		e.publish(other, "x", msg("", "both"))
		e.publish(other, "", msg("q", "default"))
		e.must(c.DeleteQueue(e.ctx, "q", nil), "DeleteQueue, round %d", i)
		e.mustBe(e.try(other, "", msg("q", "gone")), "Publish to the deleted queue", polymq.ErrUnroutable)
		e.publish(other, "x", msg("", "one"))
		want = append(want, "both", "one")
	}
	e.declare(c, "q")
	e.publish(other, "x", msg("", "binding gone too"))
	e.publish(other, "", msg("q", "only this"))
	e.has(c, "q", "only this")
	e.has(c, "stays", append(want, "binding gone too")...)
}

func deleteExchangeInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "in", Kind: routing.Fanout, Alternate: "alt"}, routing.Exchange{Name: "mid", Kind: routing.Fanout},
		"q", "rest", to("mid", "q", ""), routing.Binding{Exchange: "in", ToExchange: "mid"})
	e.publish(other, "in", msg("", "1"))
	e.must(c.DeleteExchange(e.ctx, "mid", nil), "DeleteExchange")
	e.mustBe(e.try(other, "in", msg("", "2")), "Publish once the exchange between is deleted", polymq.ErrUnroutable)
	e.declare(c, routing.Exchange{Name: "alt", Kind: routing.Fanout}, to("alt", "rest", ""))
	e.publish(other, "in", msg("", "3"))
	e.must(c.DeleteExchange(e.ctx, "alt", nil), "DeleteExchange of an alternate exchange")
	e.mustBe(e.try(other, "in", msg("", "4")), "Publish once the alternate exchange is deleted", polymq.ErrUnroutable)
	e.has(c, "q", "1")
	e.has(c, "rest", "3")
}

func deleteConditions(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	e.publish(c, "x", msg("", "1"))
	e.mustBe(c.DeleteQueue(e.ctx, "q", &polymq.DeleteOptions{IfEmpty: true}), "DeleteQueue with IfEmpty of a queue with a message", polymq.ErrInUse)
	e.mustBe(c.DeleteExchange(e.ctx, "x", &polymq.DeleteOptions{IfUnused: true}), "DeleteExchange with IfUnused of an exchange with a binding", polymq.ErrInUse)
	s := e.subscriber(other, "q", 1)
	e.ack(e.body(s, "1"))
	e.mustBe(c.DeleteQueue(e.ctx, "q", &polymq.DeleteOptions{IfUnused: true}), "DeleteQueue with IfUnused of a queue with a subscriber", polymq.ErrInUse)
	e.publish(c, "x", msg("", "still there"))
	e.ack(e.body(s, "still there"))
	e.close(s)
	e.eventually("DeleteQueue with IfUnused and IfEmpty of a queue that is neither", func() bool {
		err := c.DeleteQueue(e.ctx, "q", &polymq.DeleteOptions{IfUnused: true, IfEmpty: true})
		if err != nil && !is(err, polymq.ErrInUse) {
			e.Fatalf("DeleteQueue: %v", err)
		}
		return err == nil
	})
	e.mustBe(e.try(other, "x", msg("", "")), "Publish after that", polymq.ErrUnroutable)
	e.must(c.DeleteExchange(e.ctx, "x", &polymq.DeleteOptions{IfUnused: true}), "DeleteExchange with IfUnused of an exchange whose queue is deleted")
	e.mustBe(e.try(other, "x", msg("", "")), "Publish after that", polymq.ErrNotFound)
	e.mustBe(c.Verify(e.ctx, topology("q")), "Verify of the deleted queue", polymq.ErrNotFound)
}
