package oracle

import (
	"maps"
	"math/rand/v2"
	"slices"

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
