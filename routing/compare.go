package routing

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Plan is how a topology that stands differs from one that is wanted, sorted
// by name. Declaring what is wanted makes what is to create, and nothing else:
// it refuses what is in conflict and leaves alone what is extra.
type Plan struct {
	Create    Topology   // wanted, and not there
	Conflicts []Conflict // there, but different
	Extra     Topology   // there, and not wanted
}

// Done reports that all that is wanted stands as wanted.
func (p Plan) Done() bool {
	return len(p.Create.Exchanges)+len(p.Create.Queues)+len(p.Create.Bindings)+len(p.Conflicts) == 0
}

// String is the plan for people: a line for each element, and how many there
// are.
func (p Plan) String() string {
	var b strings.Builder
	p.Create.list(&b, "create   ")
	for _, c := range p.Conflicts {
		fmt.Fprintf(&b, "conflict  %v\n", c)
	}
	p.Extra.list(&b, "extra    ")
	count := func(t Topology) int { return len(t.Exchanges) + len(t.Queues) + len(t.Bindings) }
	fmt.Fprintf(&b, "plan: %d to create, %d in conflict, %d extra", count(p.Create), len(p.Conflicts), count(p.Extra))
	return b.String()
}

// list writes a line for each element.
func (t Topology) list(b *strings.Builder, what string) {
	for _, x := range t.Exchanges {
		fmt.Fprintf(b, "%s exchange %q%s\n", what, x.Name, said(x.fields()[1:]))
	}
	for _, q := range t.Queues {
		fmt.Fprintf(b, "%s queue %q%s\n", what, q.Name, said(q.fields()[1:]))
	}
	for _, d := range t.Bindings {
		fmt.Fprintf(b, "%s %v%s\n", what, d, said(d.fields()[4:]))
	}
}

// said is the fields that are not left at their defaults.
func said(fields []field) (text string) {
	for _, f := range fields {
		if !f.zero() {
			text += ", " + f.key + " " + f.text()
		}
	}
	return text
}

// A Conflict is an exchange or queue that stands differently than wanted.
// Exactly one of the two names is set.
type Conflict struct {
	Exchange, Queue string       // its name
	Differences     []Difference // never empty
}

// String is the conflict as errors show it.
func (c Conflict) String() string {
	s := fmt.Sprintf("queue %q", c.Queue)
	if c.Exchange != "" {
		s = fmt.Sprintf("exchange %q", c.Exchange)
	}
	for i, d := range c.Differences {
		sep := ", "
		if i == 0 {
			sep = ": "
		}
		s += sep + d.String()
	}
	return s
}

// Compare plans how the topology that stands becomes the one that is wanted. The exchanges that every broker has are there in both.
func Compare(stands, want Topology) Plan {
	stands.Bindings = distinct(stands.Bindings)
	return CompareSeen(stands, want, func(args map[string]any) map[string]any { return args })
}

// CompareSeen is Compare where what stands shows arguments of bindings not as they
// were declared, but as seen says, so that bindings can look alike. Of those, as many
// are to create, or extra, as there are too few or too many; which ones cannot be told,
// and the last are taken.
func CompareSeen(stands, want Topology, seen func(args map[string]any) map[string]any) Plan {
	var p Plan
	exchanges := map[string]Exchange{}
	for _, x := range slices.Concat(predeclared, stands.Exchanges) {
		exchanges[x.Name] = x
	}
	wanted := map[string]bool{}
	for _, x := range want.Exchanges {
		if wanted[x.Name] {
			continue
		}
		wanted[x.Name] = true
		if was, ok := exchanges[x.Name]; !ok {
			p.Create.Exchanges = append(p.Create.Exchanges, x)
		} else if d := was.Differences(x); len(d) > 0 {
			p.Conflicts = append(p.Conflicts, Conflict{Exchange: x.Name, Differences: d})
		}
	}
	for _, x := range stands.Exchanges {
		if !wanted[x.Name] {
			p.Extra.Exchanges = append(p.Extra.Exchanges, x)
		}
	}
	p.queues(stands.Queues, want.Queues)
	p.bindings(stands.Bindings, distinct(want.Bindings), seen)
	p.Create.sort()
	p.Extra.sort()
	slices.SortStableFunc(p.Conflicts, func(a, b Conflict) int {
		return cmp.Or(cmp.Compare(a.Queue, b.Queue), cmp.Compare(a.Exchange, b.Exchange))
	})
	return p
}

func (p *Plan) queues(stands, want []Queue) {
	queues := map[string]Queue{}
	for _, q := range stands {
		queues[q.Name] = q
	}
	wanted := map[string]bool{}
	for _, q := range want {
		if wanted[q.Name] {
			continue
		}
		wanted[q.Name] = true
		if was, ok := queues[q.Name]; !ok {
			p.Create.Queues = append(p.Create.Queues, q)
		} else if d := was.Differences(q); len(d) > 0 {
			p.Conflicts = append(p.Conflicts, Conflict{Queue: q.Name, Differences: d})
		}
	}
	for _, q := range stands {
		if !wanted[q.Name] {
			p.Extra.Queues = append(p.Extra.Queues, q)
		}
	}
}

func (p *Plan) bindings(stands, want []Binding, seen func(map[string]any) map[string]any) {
	looks := func(b Binding) string {
		b.Args = seen(b.Args)
		return b.identity()
	}
	there, wanted := map[string]int{}, map[string]int{}
	for _, b := range stands {
		there[b.identity()]++
	}
	for _, b := range want {
		look := looks(b)
		if wanted[look]++; wanted[look] > there[look] {
			p.Create.Bindings = append(p.Create.Bindings, b)
		}
	}
	for _, b := range stands {
		if id := b.identity(); wanted[id] > 0 {
			wanted[id]--
		} else {
			p.Extra.Bindings = append(p.Extra.Bindings, b)
		}
	}
}

// distinct is each of the bindings once.
func distinct(bs []Binding) []Binding {
	var once []Binding
	known := map[string]bool{}
	for _, b := range bs {
		if id := b.identity(); !known[id] {
			known[id] = true
			once = append(once, b)
		}
	}
	return once
}

// identity is a text that two bindings share only if they are the same.
func (b Binding) identity() string {
	args, err := normalArgs(b.Args)
	if err != nil {
		args = b.Args
	}
	return canonical([]any{b.Exchange, b.Queue, b.ToExchange, b.Key, args})
}

// sort brings a topology into the order in which tables show it.
func (t *Topology) sort() {
	slices.SortFunc(t.Exchanges, func(a, b Exchange) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Queues, func(a, b Queue) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(t.Bindings, compareBindings)
}
