package oracle

import (
	"slices"
	"time"

	"github.com/polymq/polymq/routing"
)

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
