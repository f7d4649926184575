package oracle

import (
	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

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
