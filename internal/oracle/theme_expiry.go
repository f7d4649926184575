package oracle

import (
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

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
