package oracle

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// A theme is what a script is about; all scripts route, publish and consume.
type theme struct {
	name   string
	weight int
	make   func(g *generator)
}

var themes = []theme{
	{"routing", 8, (*generator).routing},
	{"dead letters", 8, (*generator).deadLetters},
	{"returns", 5, (*generator).returning},
	{"topology", 6, (*generator).topologyChanges},
	{"message TTL", 5, (*generator).messageTTL},
	{"queue TTL", 5, (*generator).queueTTL},
	{"hold beyond TTL", 1, (*generator).holdBeyondTTL},
	{"max length", 6, (*generator).maxLength},
	{"priority", 5, (*generator).priority},
	{"single active consumer", 4, (*generator).singleActive},
	{"exclusive", 4, (*generator).exclusive},
	{"auto-delete", 4, (*generator).autoDelete},
	{"queue expiry", 2, (*generator).expiry},
	{"attempts", 4, (*generator).attempts},
	{"delayed nack", 3, (*generator).delayedNack},
	{"delay", 3, (*generator).delay},
}

// Options are what the generator goes by.
type Options struct {
	// Themes are the only themes; nil for all.
	Themes []string
	// Version is RabbitMQ's: its known differences are avoided.
	Version [2]int
}

// from reports whether RabbitMQ is of this version or newer.
func (o Options) from(major, minor int) bool {
	return o.Version[0] > major || o.Version[0] == major && o.Version[1] >= minor
}

// generator makes one script. It knows what stands as far as it must, so that
// most operations find what they need.
type generator struct {
	*rand.Rand
	o     Options
	s     Script
	known *tally // of what was avoided

	exchanges []string
	kinds     map[string]routing.Kind
	queues    []string
	spec      map[string]routing.Queue
	bindings  []routing.Binding
	subs      []*consumer
	dirty     map[string]bool // something was returned to it, in an order of its own
	mixed     bool            // dead letters may arrive in any order
	named     int             // consumers
	messages  int
}

type consumer struct {
	name, queue string
	prefetch    int
	on          int
}

// Generate makes the script of a seed.
func Generate(seed uint64, o Options, known *tally) (s Script, about string) {
	g := &generator{
		Rand: rand.New(rand.NewPCG(seed, 0x706f6c796d71)), o: o, known: known,
		kinds: map[string]routing.Kind{}, spec: map[string]routing.Queue{}, dirty: map[string]bool{},
	}
	choice := themes
	if o.Themes != nil {
		choice = nil
		for _, t := range themes {
			if slices.Contains(o.Themes, t.name) {
				choice = append(choice, t)
			}
		}
	}
	total := 0
	for _, t := range choice {
		total += t.weight
	}
	n := g.IntN(total)
	for _, t := range choice {
		if n -= t.weight; n < 0 {
			g.s.Classic = g.chance(50)
			t.make(g)
			g.epilogue()
			return g.s, t.name
		}
	}
	panic("unreachable")
}

func (g *generator) do(ops ...Op) { g.s.Ops = append(g.s.Ops, ops...) }

func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g *generator, list ...T) T { return list[g.IntN(len(list))] }

func (g *generator) on() int { return g.IntN(connections) }

// avoid counts that the generator went another way.
func (g *generator) avoid(name string) { g.known.add(name, 1) }

// words of routing keys, few so that they match.
var words = []string{"a", "b", "c"}

func (g *generator) key() string {
	key := ""
	for i := range g.IntN(4) {
		if i > 0 {
			key += "."
		}
		key += pick(g, words...)
	}
	if g.chance(3) {
		key += "."
	}
	return key
}

func (g *generator) pattern() string {
	key, hashes := "", 0
	for i := range 1 + g.IntN(3) {
		if i > 0 {
			key += "."
		}
		word := pick(g, "a", "b", "c", "*", "#", "*")
		if word == "#" {
			if hashes++; hashes > 2 {
				word = "*"
			}
		}
		key += word
	}
	return key
}

// value is a header's, of any type.
func (g *generator) value(depth int) any {
	switch n := g.IntN(9); {
	case n == 0:
		return pick(g, "", "text", "ünïcode")
	case n == 1:
		return []byte(pick(g, "", "bytes\x00\xff"))
	case n == 2:
		return g.chance(50)
	case n == 3:
		return pick(g, int64(0), 1, -1, 1<<40, -1<<63)
	case n == 4:
		return pick(g, 0.5, -1e300, 3)
	case n == 5:
		return time.Unix(pick(g, int64(0), 1700000000), 0).UTC()
	case n == 6 || depth > 2:
		return nil
	case n == 7:
		return map[string]any{"k": g.value(depth + 1), "l": g.value(depth + 1)}
	}
	return []any{g.value(depth + 1), g.value(depth + 1)}
}

// matched is a value that a headers exchange compares: versions agree on these.
func (g *generator) matched() any {
	if g.chance(10) {
		g.avoid(knownHeaderNumbers)
	}
	return pick[any](g, "s", "t", int64(1), int64(2), true, false, nil)
}

func (g *generator) message() polymq.Message {
	g.messages++
	m := polymq.Message{ID: fmt.Sprintf("m%d", g.messages), Key: g.key(), Body: []byte(fmt.Sprintf("body %d", g.messages))}
	if g.chance(10) {
		m.Body = nil
	}
	header := polymq.Header{}
	if g.chance(40) {
		header["h1"] = g.matched()
	}
	if g.chance(30) {
		header["h2"] = g.matched()
	}
	if g.chance(25) {
		header[pick(g, "v1", "v2", "x-mine")] = g.value(0)
	}
	if g.chance(15) {
		header["CC"] = g.copies()
	}
	if g.chance(12) {
		header["BCC"] = g.copies()
	}
	if len(header) > 0 {
		m.Header = header
	}
	if g.chance(20) {
		m.ContentType, m.ContentEncoding, m.Type = "text/plain", "identity", "kind"
	}
	if g.chance(15) {
		m.CorrelationID, m.ReplyTo, m.AppID = "correlation", "reply", "app"
	}
	if g.chance(15) {
		m.Time = time.Unix(1700000000+int64(g.IntN(1000)), 0).UTC()
	}
	if g.chance(10) {
		// Delayed messages pass quorum queues, and may end in one.
		if g.o.from(4, 0) && (!g.s.Classic || g.s.Driver) {
			g.avoid(knownPlainPriority)
		} else {
			m.Priority = uint8(g.IntN(12))
		}
	}
	if g.chance(10) {
		m.Transient = true
	}
	if g.chance(5) {
		m.TTL = pick(g, time.Hour, 90*time.Minute)
	}
	return m
}

// copies are keys for CC or BCC, of queues as well, since the default exchange
// takes them too.
func (g *generator) copies() []any {
	list := []any{g.key()}
	for range g.IntN(2) {
		list = append(list, pick(g, append([]string{g.key()}, g.queues...)...))
	}
	return list
}

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
			if g.o.from(4, 3) {
				g.avoid(knownTransient)
			} else {
				q.Transient = true
			}
		}
		if g.chance(10) {
			q.Expires = 2 * time.Hour
		}
	})
}

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

// epilogue empties every queue, in a way that no order of returned messages
// changes.
func (g *generator) epilogue() {
	g.closeAll()
	var open []string
	for _, name := range g.queues {
		if q := g.spec[name]; !g.brief(q) {
			open = append(open, name)
		}
	}
	if len(open) > 0 {
		g.publishTo(pick(g, open...), 1, nil)
	}
	for _, name := range slices.Sorted(maps.Keys(g.spec)) {
		q := g.spec[name]
		if g.brief(q) {
			continue
		}
		c := g.subscribe(g.on(), name, whole)
		g.do(Receive{By: c.name}, Settle{By: c.name, All: true, Outcome: Ack})
		g.close(c)
	}
}

// brief says that a queue may be gone at the end, or what is in it.
func (g *generator) brief(q routing.Queue) bool {
	return q.TTL > 0 && q.TTL <= short || q.Exclusive || q.Expires > 0 && q.Expires < watched
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
