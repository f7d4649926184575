package oracle

import (
	"fmt"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func (g *generator) exchange(kind routing.Kind, alternate string) string {
	name := fmt.Sprintf("x%d", len(g.exchanges)+1)
	g.exchanges = append(g.exchanges, name)
	g.kinds[name] = kind
	g.do(Declare{On: g.on(), Topology: routing.Topology{Exchanges: []routing.Exchange{{Name: name, Kind: kind, Alternate: alternate, Transient: g.chance(10)}}}})
	return name
}

func (g *generator) anyKind() routing.Kind {
	return pick(g, routing.Direct, routing.Fanout, routing.Topic, routing.Topic, routing.Headers)
}

// queue declares one; change fills in what it is to be.
func (g *generator) queue(on int, change func(q *routing.Queue)) string {
	q := routing.Queue{Name: fmt.Sprintf("q%d", len(g.queues)+1)}
	if change != nil {
		change(&q)
	}
	if q.DeadLetterExchange != "" && (g.s.Classic || q.Transient || q.Exclusive || q.AutoDelete || q.MaxPriority > 0 || q.MaxLength+int(q.MaxBytes) > 0) {
		q.BestEffortDeadLetter = true
	}
	if q.DeadLetterExchange != "" && (!g.s.Classic || q.TTL > 0) {
		g.mixed = true
	}
	g.queues = append(g.queues, q.Name)
	g.spec[q.Name] = q
	g.do(Declare{On: on, Topology: routing.Topology{Queues: []routing.Queue{q}}})
	return q.Name
}

func (g *generator) plainQueue() string {
	return g.queue(g.on(), func(q *routing.Queue) {
		if g.chance(15) {
			q.Transient = true
		}
		if g.chance(10) {
			q.Expires = 2 * time.Hour
		}
	})
}

func queueName(n int) string { return "q" + string(rune('0'+n)) }

func (g *generator) bind(b routing.Binding) {
	g.bindings = append(g.bindings, b)
	g.do(Bind{On: g.on(), Binding: b})
}

// binding is a random one from an exchange, to a queue where to is "".
func (g *generator) binding(from, queue, to string) routing.Binding {
	b := routing.Binding{Exchange: from, Queue: queue, ToExchange: to}
	switch g.kinds[from] {
	case routing.Direct:
		b.Key = g.key()
	case routing.Topic:
		b.Key = g.pattern()
	case routing.Headers:
		b.Args = map[string]any{}
		if g.chance(80) {
			b.Args["h1"] = g.matched()
		}
		if g.chance(50) {
			b.Args["h2"] = g.matched()
		}
		if g.chance(70) {
			b.Args["x-match"] = pick(g, "all", "any", "all-with-x", "any-with-x")
		}
		if g.chance(10) {
			b.Args["x-mine"] = g.matched()
		}
	default:
		if g.chance(30) {
			b.Key = g.key()
		}
	}
	return b
}

// layout declares exchanges and queues and binds them at random.
func (g *generator) layout(exchanges, queues int) {
	from := len(g.s.Ops)
	defer func() {
		if g.chance(60) {
			g.together(from)
		}
	}()
	for range exchanges {
		alternate := ""
		if len(g.exchanges) > 0 && g.chance(35) {
			alternate = pick(g, g.exchanges...)
		} else if g.chance(5) {
			alternate = "missing"
		}
		g.exchange(g.anyKind(), alternate)
	}
	for range queues {
		g.plainQueue()
	}
	if len(g.queues) == 0 {
		return
	}
	for range 2 + g.IntN(5) {
		from := pick(g, g.exchanges...)
		if len(g.exchanges) > 1 && g.chance(25) {
			g.bind(g.binding(from, "", pick(g, g.exchanges...)))
		} else {
			g.bind(g.binding(from, pick(g, g.queues...), ""))
		}
	}
	if g.chance(15) {
		x := pick(g, "amq.direct", "amq.topic", "amq.fanout", "amq.headers", "amq.match")
		g.kinds[x] = routing.Topic
		b := routing.Binding{Exchange: x, Queue: pick(g, g.queues...), Key: "unique"}
		g.bind(b)
		// Unbound before anybody else publishes there: its namespace is shared.
		m := g.message()
		m.Key = "unique"
		g.do(Publish{On: g.on(), Exchange: x, Messages: []polymq.Message{m}}, Unbind{On: g.on(), Binding: b})
		delete(g.kinds, x)
		g.bindings = g.bindings[:len(g.bindings)-1]
	}
}

// together makes one declaration of those from one operation on.
func (g *generator) together(from int) {
	all := Declare{On: g.on()}
	rest := g.s.Ops[:from:from]
	var others []Op
	for _, op := range g.s.Ops[from:] {
		switch o := op.(type) {
		case Declare:
			all.Topology.Exchanges = append(all.Topology.Exchanges, o.Topology.Exchanges...)
			all.Topology.Queues = append(all.Topology.Queues, o.Topology.Queues...)
		case Bind:
			if len(others) > 0 {
				others = append(others, op)
			} else {
				all.Topology.Bindings = append(all.Topology.Bindings, o.Binding)
			}
		default:
			others = append(others, op)
		}
	}
	g.s.Ops = append(append(rest, all), others...)
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
