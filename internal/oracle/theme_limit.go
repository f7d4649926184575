package oracle

import (
	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func (g *generator) maxLength() {
	g.layout(1, 1)
	x, key := "", ""
	if g.chance(60) {
		x, key = g.deadTarget()
	}
	rejects := g.chance(45)
	if rejects && !g.s.Classic {
		g.avoid(knownRejectQuorum)
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
			q.Overflow, q.Transient = routing.RejectPublish, !g.s.Classic // a classic one, by its type or so
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
