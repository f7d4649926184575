package oracle

import (
	"fmt"
	"slices"

	"github.com/polymq/polymq"
)

func (g *generator) some() { g.publish(1+g.IntN(3), nil) }

func (g *generator) single() { g.publish(1, nil) }

// publish publishes n messages to a random place; change may make them special.
func (g *generator) publish(n int, change func(m *polymq.Message)) {
	p := Publish{On: g.on(), Exchange: pick(g, append([]string{""}, g.exchanges...)...), Drop: g.chance(10), AsUser: g.chance(8)}
	if g.chance(3) {
		p.Exchange = "missing"
	}
	for range n {
		m := g.message()
		if p.Exchange == "" && g.chance(92) {
			m.Key = pick(g, g.queues...)
		}
		if change != nil {
			change(&m)
		}
		p.Messages = append(p.Messages, m)
	}
	g.do(p)
}

// publishTo publishes n messages to one queue.
func (g *generator) publishTo(queue string, n int, change func(m *polymq.Message)) {
	p := Publish{On: g.on()}
	for range n {
		m := g.message()
		delete(m.Header, "CC")
		delete(m.Header, "BCC")
		m.Key = queue
		if change != nil {
			change(&m)
		}
		p.Messages = append(p.Messages, m)
	}
	g.do(p)
}

func (g *generator) consumers(queue string) (n int) {
	for _, c := range g.subs {
		if c.queue == queue {
			n++
		}
	}
	return n
}

// whole is a prefetch that takes all that a script can put into a queue.
const whole = 100

func (g *generator) subscribe(on int, queue string, prefetch int) *consumer {
	g.named++
	c := &consumer{fmt.Sprintf("c%d", g.named), queue, prefetch, on}
	if (g.dirty[queue] || g.mixed) && prefetch < whole {
		g.avoid(knownPartial)
		c.prefetch = whole
	}
	g.subs = append(g.subs, c)
	g.do(Subscribe{On: on, By: c.name, Queue: queue, Prefetch: c.prefetch})
	return c
}

func (g *generator) drop(c *consumer) {
	g.subs = slices.DeleteFunc(g.subs, func(o *consumer) bool { return o == c })
}

// close ends a subscriber; what it holds goes back.
func (g *generator) close(c *consumer) {
	g.drop(c)
	g.returned(c.queue)
	g.do(Close{By: c.name})
}

func (g *generator) returned(queue string) { g.dirty[queue] = true }

func (g *generator) closeAll() {
	for len(g.subs) > 0 {
		g.close(g.subs[0])
	}
}

// free is a queue that a new subscriber may take; "" for none.
func (g *generator) free() string {
	var free []string
	for _, q := range g.queues {
		if ttl := g.spec[q].TTL; ttl > 0 && ttl <= short {
			continue
		}
		if g.consumers(q) > 0 && !g.spec[q].SingleActiveConsumer {
			g.avoid(knownShared)
			continue
		}
		free = append(free, q)
	}
	if len(free) == 0 {
		return ""
	}
	return pick(g, free...)
}

// step does one random thing.
func (g *generator) step(publish func()) {
	switch n := g.IntN(100); {
	case n < 28:
		publish()
	case n < 42:
		if q := g.free(); q != "" {
			g.avoid(knownLazy)
			g.subscribe(g.on(), q, pick(g, 1, 2, whole))
		}
	case n < 64:
		if len(g.subs) > 0 {
			c := pick(g, g.subs...)
			most := 0
			if !g.dirty[c.queue] && !g.mixed && g.chance(30) {
				most = 1 + g.IntN(3)
			}
			g.do(Receive{By: c.name, Max: most})
		}
	case n < 86:
		if len(g.subs) > 0 {
			c := pick(g, g.subs...)
			outcome := pick(g, Ack, Ack, Reject, Nack)
			if outcome == Nack {
				if c.prefetch < whole {
					g.avoid(knownPartial)
					outcome = Ack
				} else {
					g.returned(c.queue)
				}
			}
			g.do(Settle{By: c.name, Nth: g.IntN(3) * g.IntN(2), All: outcome != Nack && g.chance(30), Outcome: outcome})
		}
	case n < 91:
		if len(g.subs) > 0 {
			g.close(pick(g, g.subs...))
		}
	case n < 94:
		q := g.someQueue()
		if g.dirty[q] && g.consumers(q) > 0 {
			g.avoid(knownReturning)
			return
		}
		g.do(Purge{On: g.on(), Queue: q})
	default:
		g.do(Inspect{On: g.on(), Queue: g.someQueue()})
	}
}

func (g *generator) someQueue() string {
	if g.chance(5) {
		return "missing"
	}
	return pick(g, g.queues...)
}

func (g *generator) steps(n int, publish func()) {
	for range n {
		g.step(publish)
	}
}
