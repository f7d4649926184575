package oracle

import (
	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

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
