package oracle

import (
	"slices"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

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
