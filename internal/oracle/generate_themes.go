package oracle

import (
	"slices"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func (g *generator) some() { g.publish(1+g.IntN(3), nil) }

func (g *generator) single() { g.publish(1, nil) }

func (g *generator) routing() {
	g.layout(1+g.IntN(4), 1+g.IntN(4))
	g.publish(2+g.IntN(4), nil)
	g.steps(8+g.IntN(8), g.some)
}

func (g *generator) returning() {
	g.layout(1, 1)
	q := g.queues[0]
	g.publishTo(q, 2+g.IntN(4), nil)
	c := g.subscribe(g.on(), q, whole)
	for range 2 + g.IntN(3) {
		g.do(Receive{By: c.name})
		g.returned(q)
		g.do(Settle{By: c.name, Nth: g.IntN(2), All: g.chance(30), Outcome: Nack})
		if g.chance(40) {
			g.publishTo(q, 1, nil)
		}
		if g.chance(30) {
			g.do(Settle{By: c.name, Nth: g.IntN(2), Outcome: Ack})
		}
	}
	switch g.IntN(3) {
	case 0:
		g.close(c)
	case 1:
		g.drop(c)
		g.do(Disconnect{On: c.on})
	}
	g.steps(4, g.some)
}

// deadTarget makes a place for dead letters: an exchange with a queue bound to
// all of it, or the default exchange, and the key to go there by.
func (g *generator) deadTarget() (exchange, key string) {
	if g.chance(30) {
		return routing.DefaultExchange, g.plainQueue()
	}
	x := g.exchange(pick(g, routing.Fanout, routing.Topic), "")
	q := g.plainQueue()
	if g.chance(20) {
		g.avoid(knownNowhere)
	}
	g.bind(routing.Binding{Exchange: x, Queue: q, Key: "#"})
	if g.chance(40) {
		key = g.key()
		if key == "" {
			key = "letter"
		}
	}
	return x, key
}

func (g *generator) deadLetters() {
	g.layout(1+g.IntN(2), g.IntN(2))
	x, key := g.deadTarget()
	first := g.queue(g.on(), func(q *routing.Queue) { q.DeadLetterExchange, q.DeadLetterKey = x, key })
	if g.chance(50) {
		// A chain: the letters of another queue go to this one.
		second := g.queue(g.on(), func(q *routing.Queue) { q.DeadLetterExchange, q.DeadLetterKey = routing.DefaultExchange, first })
		g.bind(g.binding(g.exchanges[0], second, ""))
		g.letters(second)
	}
	if g.chance(30) {
		// Two queues that are each other's.
		n := len(g.queues)
		a, b := queueName(n+1), queueName(n+2)
		g.queue(g.on(), func(q *routing.Queue) { q.DeadLetterExchange, q.DeadLetterKey = routing.DefaultExchange, b })
		g.queue(g.on(), func(q *routing.Queue) { q.DeadLetterExchange, q.DeadLetterKey = routing.DefaultExchange, a })
		g.publishTo(a, 1+g.IntN(2), nil)
		for _, q := range []string{a, b, a} {
			c := g.subscribe(g.on(), q, whole)
			g.do(Receive{By: c.name}, Settle{By: c.name, All: true, Outcome: Reject})
			g.close(c)
		}
	}
	g.bind(g.binding(g.exchanges[0], first, ""))
	g.letters(first)
	g.steps(6+g.IntN(8), g.some)
}

// letters publishes to a queue and rejects some.
func (g *generator) letters(queue string) {
	if g.consumers(queue) > 0 {
		return
	}
	p := g.chance(50)
	g.publishTo(queue, 1+g.IntN(3), func(m *polymq.Message) {
		if p && g.chance(40) {
			if m.Header == nil {
				m.Header = polymq.Header{}
			}
			m.Header[pick(g, "CC", "BCC")] = []any{g.key()}
		}
	})
	c := g.subscribe(g.on(), queue, whole)
	g.do(Receive{By: c.name})
	g.do(Settle{By: c.name, Nth: g.IntN(2), All: g.chance(50), Outcome: Reject})
	g.do(Settle{By: c.name, All: true, Outcome: Ack})
	g.close(c)
}

// topologyChanges changes the topology while messages flow.
func (g *generator) topologyChanges() {
	g.layout(2+g.IntN(2), 2+g.IntN(2))
	for range 8 + g.IntN(6) {
		switch g.IntN(12) {
		case 0, 1:
			g.bind(g.binding(pick(g, g.exchanges...), pick(g, g.queues...), ""))
		case 2, 3:
			if len(g.bindings) > 0 {
				g.do(Unbind{On: g.on(), Binding: pick(g, g.bindings...)})
			} else {
				g.do(Unbind{On: g.on(), Binding: routing.Binding{Exchange: g.exchanges[0], Queue: g.queues[0], Key: "never"}})
			}
		case 4:
			g.do(Bind{On: g.on(), Binding: routing.Binding{Exchange: pick(g, "missing", g.exchanges[0]), Queue: "missing"}})
		case 5:
			g.do(DeleteExchange{On: g.on(), Exchange: pick(g, append([]string{"missing"}, g.exchanges...)...), IfUnused: g.chance(60)})
		case 6:
			g.deleteQueue()
		case 7:
			// The same again.
			q := g.spec[pick(g, g.queues...)]
			g.do(Declare{On: g.on(), Topology: routing.Topology{Queues: []routing.Queue{q}}})
		case 8:
			g.conflict()
		default:
			g.publish(1+g.IntN(2), nil)
		}
		if g.chance(50) {
			g.step(g.single)
		}
	}
}

// deleteQueue deletes one, also under a subscriber, and may make it anew.
func (g *generator) deleteQueue() {
	name := pick(g, g.queues...)
	if g.chance(50) && g.consumers(name) == 0 {
		g.subscribe(g.on(), name, whole)
	}
	for _, c := range g.subs {
		if c.queue == name {
			g.do(Receive{By: c.name})
		}
	}
	g.do(DeleteQueue{On: g.on(), Queue: name, IfUnused: g.chance(25), IfEmpty: g.chance(25)})
	for _, c := range slices.Clone(g.subs) {
		if c.queue == name {
			g.do(Receive{By: c.name})
			g.close(c)
		}
	}
	if g.chance(70) {
		g.do(Declare{On: g.on(), Topology: routing.Topology{Queues: []routing.Queue{g.spec[name]}}})
	}
}

// conflict declares something that stands, in another way.
func (g *generator) conflict() {
	if g.chance(30) {
		x := pick(g, g.exchanges...)
		kind := pick(g, routing.Direct, routing.Fanout, routing.Topic, routing.Headers)
		g.do(Declare{On: g.on(), Topology: routing.Topology{Exchanges: []routing.Exchange{{Name: x, Kind: kind, Alternate: "other"}}}})
		return
	}
	q := g.spec[pick(g, g.queues...)]
	switch g.IntN(6) {
	case 0:
		q.TTL += time.Hour
	case 1:
		q.MaxLength += 7
	case 2:
		q.DeadLetterExchange, q.DeadLetterKey, q.BestEffortDeadLetter = "other", "", true
	case 3:
		q.Expires += time.Hour
	case 4:
		q.MaxBytes += 1000
	case 5:
		q.SingleActiveConsumer = !q.SingleActiveConsumer
	}
	if g.chance(5) {
		g.avoid(knownExclusiveAgain)
	}
	g.do(Declare{On: g.on(), Topology: routing.Topology{Queues: []routing.Queue{q}}})
}

func (g *generator) soon() time.Duration { return time.Duration(60+10*g.IntN(6)) * time.Millisecond }

func (g *generator) messageTTL() {
	g.layout(1, g.IntN(2))
	q := g.plainQueue()
	if g.chance(75) {
		x, key := g.deadTarget()
		q = g.queue(g.on(), func(q *routing.Queue) { q.DeadLetterExchange, q.DeadLetterKey = x, key })
	}
	g.bind(g.binding(g.exchanges[0], q, ""))
	for range 2 + g.IntN(2) {
		g.closeAll()
		if g.chance(40) {
			g.publishTo(q, 1, nil) // which keeps those behind it from expiring
		}
		g.publishTo(q, 1+g.IntN(3), func(m *polymq.Message) {
			if g.chance(70) {
				m.TTL = g.soon()
			}
		})
		if g.chance(40) {
			g.publish(1, func(m *polymq.Message) { m.TTL = g.soon() })
		}
		g.do(Wait{})
		if g.chance(50) {
			g.do(Inspect{On: g.on(), Queue: q})
		}
		g.steps(3, g.some)
	}
}

func (g *generator) queueTTL() {
	g.layout(1, 1)
	x, key := g.deadTarget()
	last := g.queue(g.on(), func(q *routing.Queue) {
		q.TTL = g.soon()
		q.DeadLetterExchange, q.DeadLetterKey = x, key
	})
	switch g.IntN(3) {
	case 0: // a chain
		first := g.queue(g.on(), func(q *routing.Queue) {
			q.TTL = g.soon()
			q.DeadLetterExchange, q.DeadLetterKey = routing.DefaultExchange, last
		})
		g.publishTo(first, 1+g.IntN(2), nil)
	case 1: // a circle
		n := len(g.queues)
		a, b := queueName(n+1), queueName(n+2)
		g.queue(g.on(), func(q *routing.Queue) {
			q.TTL = g.soon()
			q.DeadLetterExchange, q.DeadLetterKey, q.BestEffortDeadLetter = routing.DefaultExchange, b, true
		})
		g.queue(g.on(), func(q *routing.Queue) {
			q.TTL = g.soon()
			q.DeadLetterExchange, q.DeadLetterKey, q.BestEffortDeadLetter = routing.DefaultExchange, a, true
		})
		g.publishTo(a, 1+g.IntN(2), nil)
	}
	g.bind(g.binding(g.exchanges[0], last, ""))
	g.publishTo(last, 1+g.IntN(3), nil)
	g.do(Wait{})
	g.steps(6, g.some)
}

// holdBeyondTTL gives back a message whose time is over by then.
func (g *generator) holdBeyondTTL() {
	x, key := g.deadTarget()
	q := g.queue(g.on(), func(q *routing.Queue) {
		q.DeadLetterExchange, q.DeadLetterKey = x, key
		if g.chance(50) {
			q.TTL = 1200 * time.Millisecond
		}
	})
	// With a prefetch of one the second waits and expires in the queue.
	c := g.subscribe(g.on(), q, pick(g, 1, whole))
	g.publishTo(q, 2, func(m *polymq.Message) { m.TTL = 1200 * time.Millisecond })
	g.do(Receive{By: c.name}, Wait{For: 1500 * time.Millisecond})
	g.returned(q)
	if g.chance(50) {
		g.do(Settle{By: c.name, Outcome: Nack})
	}
	g.close(c)
}

func (g *generator) maxLength() {
	g.layout(1, 1)
	x, key := "", ""
	if g.chance(60) {
		x, key = g.deadTarget()
	}
	rejects := g.chance(45)
	if rejects && !g.s.Classic {
		g.avoid(knownRejectQuorum) // as its type is left open
	}
	most := 0
	q := g.queue(g.on(), func(q *routing.Queue) {
		q.DeadLetterExchange, q.DeadLetterKey = x, key
		exact := g.s.Classic || !g.o.from(4, 3)
		if !exact {
			g.avoid(knownQuorumBytes)
		}
		if g.chance(60) || !exact {
			q.MaxLength = 1 + g.IntN(4)
		} else {
			q.MaxBytes = int64(10 + g.IntN(30))
		}
		if rejects {
			q.Overflow = routing.RejectPublish
		} else if g.chance(30) {
			q.Overflow = routing.DropHead
		}
		most = q.MaxLength
	})
	g.bind(g.binding(g.exchanges[0], q, ""))
	sized := func(m *polymq.Message) { m.Body = []byte("0123456789abcdefghijklmnopqrstuvwxyz"[:g.IntN(16)]) }
	if g.chance(50) {
		g.publishTo(q, most+1+g.IntN(3), sized)
	}
	for range 8 + g.IntN(6) {
		if g.chance(60) {
			// One at a time: whether a subscriber or the limit is first would
			// be a matter of luck.
			g.publishTo(q, 1, sized)
		} else {
			g.limitedStep(q)
		}
	}
}

// limitedStep returns no messages: which of them the limit then takes depends on
// their order.
func (g *generator) limitedStep(queue string) {
	g.avoid(knownPartial)
	switch g.IntN(5) {
	case 0:
		g.single()
	case 1:
		g.do(Inspect{On: g.on(), Queue: queue})
	case 2:
		g.do(Purge{On: g.on(), Queue: queue})
	case 3:
		// All that it has is taken, so that nothing goes back.
		c := g.subscribe(g.on(), queue, whole)
		g.do(Receive{By: c.name}, Settle{By: c.name, All: true, Outcome: pick(g, Ack, Reject)})
		g.close(c)
	case 4:
		if !g.s.Classic {
			return // it would go to the end there
		}
		// One alone goes back, to the head.
		c := g.subscribe(g.on(), queue, 1)
		g.do(Receive{By: c.name})
		g.publishTo(queue, 1+g.IntN(2), nil)
		g.close(c)
	}
}

func (g *generator) priority() {
	g.layout(1, 0)
	x, key := "", ""
	if g.chance(40) {
		x, key = g.deadTarget()
	}
	q := g.queue(g.on(), func(q *routing.Queue) {
		q.DeadLetterExchange, q.DeadLetterKey = x, key
		q.MaxPriority = 1 + g.IntN(9)
		if g.chance(25) {
			q.MaxLength = 2 + g.IntN(3)
		}
	})
	g.bind(g.binding(g.exchanges[0], q, ""))
	level := func(m *polymq.Message) { m.Priority = uint8(g.IntN(12)) }
	g.publishTo(q, 3+g.IntN(4), level)
	g.steps(8+g.IntN(6), func() { g.publishTo(q, 1, level) })
}

func (g *generator) singleActive() {
	g.layout(1, 0)
	q := g.queue(g.on(), func(q *routing.Queue) { q.SingleActiveConsumer = true })
	g.bind(g.binding(g.exchanges[0], q, ""))
	// RabbitMQ hands over before what the old one holds is back.
	g.avoid(knownPartial)
	prefetch := whole
	a := g.subscribe(0, q, prefetch)
	b := g.subscribe(1, q, prefetch)
	c := g.subscribe(g.on(), q, prefetch)
	g.publishTo(q, 2+g.IntN(3), nil)
	for _, s := range []*consumer{b, a} {
		g.do(Receive{By: s.name})
	}
	g.do(Settle{By: a.name, All: true, Outcome: Ack}, Receive{By: a.name})
	first := pick(g, a, b)
	if g.chance(25) {
		first = nil
		g.subs = slices.DeleteFunc(g.subs, func(o *consumer) bool { return o.on == 0 })
		g.returned(q)
		g.do(Disconnect{On: 0})
	} else {
		g.close(first)
	}
	g.publishTo(q, 1+g.IntN(2), nil)
	for _, s := range []*consumer{a, b, c} {
		if s != first {
			g.do(Receive{By: s.name}, Settle{By: s.name, All: true, Outcome: Ack})
		}
	}
	g.steps(6, g.single)
}

func (g *generator) exclusive() {
	g.layout(1, 1)
	owner := g.on()
	other := 1 - owner
	q := g.queue(owner, func(q *routing.Queue) {
		q.Exclusive = true
		q.AutoDelete = g.chance(20)
	})
	b := g.binding(g.exchanges[0], q, "")
	g.do(Bind{On: owner, Binding: b})
	g.do(Publish{On: other, Messages: []polymq.Message{g.messageTo(q), g.messageTo(q)}})
	for range 3 {
		switch g.IntN(7) {
		case 0:
			g.do(Declare{On: other, Topology: routing.Topology{Queues: []routing.Queue{g.spec[q]}}})
		case 1:
			g.named++
			g.do(Subscribe{On: other, By: "other", Queue: q, Prefetch: 1})
		case 2:
			g.do(Purge{On: other, Queue: q})
		case 3:
			g.do(Bind{On: other, Binding: g.binding(g.exchanges[0], q, "")})
		case 4:
			g.do(DeleteQueue{On: other, Queue: q})
		case 5:
			g.do(Inspect{On: other, Queue: q})
		case 6:
			g.do(Unbind{On: other, Binding: b})
		}
	}
	g.do(Inspect{On: owner, Queue: q})
	c := g.subscribe(owner, q, whole)
	g.do(Receive{By: c.name}, Settle{By: c.name, Nth: g.IntN(2), Outcome: Ack})
	if g.chance(50) {
		g.close(c)
	}
	g.publish(2, nil)
	g.closeAll()
	if g.chance(80) {
		g.do(Disconnect{On: owner})
		g.do(Publish{On: other, Messages: []polymq.Message{g.messageTo(q)}})
		g.do(Inspect{On: other, Queue: q})
		if g.chance(50) {
			g.do(Declare{On: other, Topology: routing.Topology{Queues: []routing.Queue{g.spec[q]}}})
			g.publish(1, nil)
		}
	} else {
		g.do(DeleteQueue{On: owner, Queue: q})
	}
	g.publish(1, nil)
}

func (g *generator) messageTo(queue string) polymq.Message {
	m := g.message()
	m.Key = queue
	delete(m.Header, "CC")
	delete(m.Header, "BCC")
	return m
}

func (g *generator) autoDelete() {
	g.layout(1, 1)
	q := g.queue(g.on(), func(q *routing.Queue) { q.AutoDelete = true })
	g.bind(g.binding(g.exchanges[0], q, ""))
	g.publishTo(q, 1+g.IntN(2), nil)
	c := g.subscribe(g.on(), q, pick(g, 1, whole))
	g.do(Receive{By: c.name}, Settle{By: c.name, Outcome: pick(g, Ack, Reject)})
	g.publish(2, nil)
	if g.chance(30) {
		g.subs = slices.DeleteFunc(g.subs, func(o *consumer) bool { return o.on == c.on })
		g.do(Disconnect{On: c.on})
	} else {
		g.close(c)
	}
	g.do(Publish{On: g.on(), Messages: []polymq.Message{g.messageTo(q)}})
	g.publish(2, nil)
	if g.chance(50) {
		g.do(Declare{On: g.on(), Topology: routing.Topology{Queues: []routing.Queue{g.spec[q]}}})
		g.publish(2, nil)
	}
	g.steps(4, g.some)
}

func (g *generator) expiry() {
	g.layout(1, 1)
	n := len(g.queues)
	q := queueName(n + 1)
	g.queues = append(g.queues, q)
	spec := routing.Queue{Name: q, Expires: 1500 * time.Millisecond}
	if g.chance(40) {
		spec.DeadLetterExchange, spec.DeadLetterKey, spec.BestEffortDeadLetter = routing.DefaultExchange, g.queues[0], true
	}
	g.spec[q] = spec
	g.do(Declare{On: g.on(), Topology: routing.Topology{Queues: []routing.Queue{spec}}})
	c := g.subscribe(g.on(), q, 1)
	g.bind(g.binding(g.exchanges[0], q, ""))
	g.publishTo(q, 2, nil)
	g.do(Receive{By: c.name})
	g.publish(2, nil)
	g.do(Settle{By: c.name, All: true, Outcome: Ack})
	g.close(c)
	g.do(AwaitGone{Queue: q})
	g.queues = g.queues[:n]
	delete(g.spec, q)
	g.do(Publish{On: g.on(), Messages: []polymq.Message{g.messageTo(q)}})
	g.publish(2, nil)
}

// attempts is compared with the amqp driver.
func (g *generator) attempts() {
	g.s.Driver, g.s.Classic = true, false
	x, key := "", ""
	if g.chance(80) {
		x, key = g.deadTarget()
	}
	q := g.queue(g.on(), func(q *routing.Queue) {
		q.MaxAttempts = 1 + g.IntN(3)
		q.DeadLetterExchange, q.DeadLetterKey = x, key
	})
	g.publishTo(q, 1+g.IntN(3), nil)
	c := g.subscribe(g.on(), q, whole)
	delayed := g.chance(50)
	for range 3 + g.IntN(2) {
		g.do(Receive{By: c.name})
		g.returned(q)
		switch n := g.IntN(4); {
		case n == 0 && delayed:
			g.do(Settle{By: c.name, Outcome: Nack, Delay: g.soon()})
			g.avoid(knownLateEnd)
		case n == 0:
			g.close(c)
			c = g.subscribe(g.on(), q, whole)
		default:
			g.do(Settle{By: c.name, All: true, Outcome: Nack})
		}
	}
	g.do(Receive{By: c.name}, Settle{By: c.name, All: true, Outcome: Reject})
	g.close(c)
}

// delayedNack is compared with the amqp driver.
func (g *generator) delayedNack() {
	g.s.Driver = true
	g.layout(1, 1)
	q := g.queues[0]
	g.publishTo(q, 2+g.IntN(2), nil)
	c := g.subscribe(g.on(), q, whole)
	for range 2 {
		g.do(Receive{By: c.name})
		g.returned(q)
		g.dirty[q] = true
		g.do(Settle{By: c.name, Nth: g.IntN(2), Outcome: Nack, Delay: g.soon()})
		g.publish(1, nil)
	}
	g.do(Receive{By: c.name})
	if g.chance(50) {
		g.do(Settle{By: c.name, All: true, Outcome: Ack})
	}
	g.close(c)
}

// delay is compared with the amqp driver.
func (g *generator) delay() {
	g.s.Driver = true
	g.layout(1+g.IntN(3), 1+g.IntN(2))
	lost := g.messageTo("nobody")
	lost.Delay = g.soon()
	g.do(Publish{Messages: []polymq.Message{lost}})
	for range 2 + g.IntN(2) {
		g.publish(1, func(m *polymq.Message) {
			if g.chance(75) {
				m.Delay = g.soon()
			}
			m.TTL = 0
		})
		if g.chance(60) {
			g.step(g.single)
		}
	}
	c := g.subscribe(g.on(), unroutable, whole)
	g.do(Receive{By: c.name}, Settle{By: c.name, All: true, Outcome: Ack})
}

func queueName(n int) string { return "q" + string(rune('0'+n)) }
