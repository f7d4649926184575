package routing

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// A drawing is a topology as a graph, whatever the language it is written in.
type drawing struct {
	nodes  []node
	arrows []arrow
	ids    map[place]string
}

type node struct {
	id       string
	exchange bool
	known    bool     // it is declared in this topology, or always there
	lines    []string // the name, and what else there is to say
}

type arrow struct {
	from, to string // ids
	label    string
	dashed   bool
}

// draw puts everything into an order that does not depend on the order in t.
// Ids are numbers, so that no name can disturb them.
func (t Topology) draw() *drawing {
	d := &drawing{ids: map[place]string{}}
	exchanges, queues := map[string]Exchange{}, map[string]Queue{}
	var names []place
	for _, x := range t.Exchanges {
		exchanges[x.Name] = x
		names = append(names, place{name: x.Name, exchange: true})
	}
	for _, q := range t.Queues {
		queues[q.Name] = q
		names = append(names, place{name: q.Name})
	}
	bindings := drawnBindings(t.Bindings)
	for _, b := range bindings {
		names = append(names, place{name: b.Exchange, exchange: true}, b.place())
	}
	for _, x := range exchanges {
		if x.Alternate != "" {
			names = append(names, place{name: x.Alternate, exchange: true})
		}
	}
	for _, q := range queues {
		if to, _, ok := q.deadLetters(); ok {
			names = append(names, to)
		}
	}
	slices.SortFunc(names, func(a, b place) int {
		if a.exchange != b.exchange {
			if a.exchange {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.name, b.name)
	})
	for _, p := range slices.Compact(names) {
		if p.exchange {
			x, known := exchanges[p.name]
			d.exchange(p, x, known)
		} else {
			q, known := queues[p.name]
			d.queue(p, q, known)
		}
	}
	for _, b := range bindings {
		from := place{name: b.Exchange, exchange: true}
		d.arrow(from, b.place(), b.label(exchanges[b.Exchange].Kind), false)
	}
	for _, name := range slices.Sorted(maps.Keys(exchanges)) {
		if to := exchanges[name].Alternate; to != "" {
			d.arrow(place{name: name, exchange: true}, place{name: to, exchange: true}, "alternate", true)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		if to, label, ok := queues[name].deadLetters(); ok {
			d.arrow(place{name: name}, to, label, true)
		}
	}
	return d
}

func (d *drawing) exchange(p place, x Exchange, known bool) {
	lines := []string{cmp.Or(printable(p.name), `""`)}
	if p.name == DefaultExchange {
		lines, known = append(lines, "default exchange"), true
	} else if always, ok := Predeclared(p.name); ok && !known {
		x, known = always, true
	}
	if x.Kind != "" {
		lines = append(lines, printable(string(x.Kind)))
	}
	for _, f := range x.fields() {
		switch f.at {
		case &x.Name, (*string)(&x.Kind), &x.Alternate:
		default:
			lines = f.line(lines)
		}
	}
	d.node(p, lines, known)
}

func (d *drawing) queue(p place, q Queue, known bool) {
	lines := []string{cmp.Or(printable(p.name), `""`)}
	for _, f := range q.fields() {
		switch f.at {
		case &q.Name, &q.DeadLetterExchange, &q.DeadLetterKey:
		default:
			lines = f.line(lines)
		}
	}
	d.node(p, lines, known)
}

func (d *drawing) node(p place, lines []string, known bool) {
	id := "q" + strconv.Itoa(len(d.nodes))
	if p.exchange {
		id = "e" + strconv.Itoa(len(d.nodes))
	}
	if !known {
		lines = append(lines, "not in this topology")
	}
	d.ids[p] = id
	d.nodes = append(d.nodes, node{id, p.exchange, known, lines})
}

func (d *drawing) arrow(from, to place, label string, dashed bool) {
	d.arrows = append(d.arrows, arrow{d.ids[from], d.ids[to], label, dashed})
}

// line is what the field says, where it says something.
func (f field) line(lines []string) []string {
	if f.zero() {
		return lines
	}
	switch p := f.at.(type) {
	case *bool:
		return append(lines, f.key)
	case *string:
		return append(lines, f.key+" "+printable(*p))
	case *time.Duration:
		return append(lines, f.key+" "+p.String())
	}
	return append(lines, f.key+" "+printable(f.text()))
}

// drawnBindings are the bindings once each, in order, with arguments that can
// be compared.
func drawnBindings(all []Binding) []Binding {
	seen := map[string]bool{}
	var bs []Binding
	for _, b := range all {
		if id := b.identity(); !seen[id] {
			seen[id] = true
			if args, err := normalArgs(b.Args); err == nil {
				b.Args = args
			}
			bs = append(bs, b)
		}
	}
	slices.SortStableFunc(bs, compareBindings)
	return bs
}

func (b Binding) place() place {
	if b.ToExchange != "" {
		return place{name: b.ToExchange, exchange: true}
	}
	return place{name: b.Queue}
}

// label is by what the binding matches. Where an empty key counts it is shown.
func (b Binding) label(kind Kind) string {
	label := printable(b.Key)
	if always, ok := Predeclared(b.Exchange); ok {
		kind = always.Kind
	}
	if b.Key == "" && (kind == Direct || kind == Topic) {
		label = `""`
	}
	if len(b.Args) > 0 {
		args := field{at: &b.Args}
		label = strings.TrimPrefix(label+" "+printable(args.text()), " ")
	}
	return label
}

// deadLetters is where the arrow of a queue's dead letters leads. The default
// exchange leads to one queue where the key is known.
func (q Queue) deadLetters() (to place, label string, ok bool) {
	label = "dead letters"
	switch {
	case q.DeadLetterExchange == "":
		return place{}, "", false
	case q.DeadLetterExchange == DefaultExchange && q.DeadLetterKey != "":
		return place{name: q.DeadLetterKey}, label, true
	case q.DeadLetterKey != "":
		return place{name: q.DeadLetterExchange, exchange: true}, label + " " + printable(q.DeadLetterKey), true
	}
	return place{name: q.DeadLetterExchange, exchange: true}, label, true
}

// printable shows what cannot be seen, or would be a new line, as in Go.
func printable(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case unicode.IsPrint(r) && r != utf8.RuneError:
			b.WriteRune(r)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], string(r)): // a byte that is no UTF-8
			b.WriteString(strings.Trim(strconv.Quote(s[i:i+1]), `"`))
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}
