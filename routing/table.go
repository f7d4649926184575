package routing

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
)

// What a table does not hold.
var (
	ErrNoExchange = errors.New("no such exchange") // that a message is published to, or a binding names
	ErrNoQueue    = errors.New("no such queue")    // that a binding names
)

// A Table is a topology compiled for routing. It is immutable and safe for
// concurrent use; Apply makes the next one.
type Table struct {
	exchanges *hamt // *exchange
	queues    *hamt // *queue
}

// An exchange as it stands in one table.
type exchange struct {
	decl *Exchange
	at   *place
	via  *via  // of its bindings that have no arguments
	in   group // bindings that lead to it
	out  index // bindings that lead from it
}

// A queue as it stands in one table.
type queue struct {
	decl *Queue
	at   *place
	in   group
}

// byName files exchanges and queues.
type byName struct{}

func placeOf(leaf any) *place {
	switch e := leaf.(type) {
	case *exchange:
		return e.at
	case *queue:
		return e.at
	}
	return leaf.(*place)
}

func (byName) hash(leaf any) uint64 { return placeOf(leaf).hash }
func (byName) same(a, b any) bool   { return placeOf(a).name == placeOf(b).name }

func (t *Table) exchange(name string) *exchange {
	h := hashOf(name)
	s := t.exchanges.get(h)
	if _, ok := s.(*clash); ok {
		s = t.exchanges.find(byName{}, h, newPlace(name, true))
	}
	if x, ok := s.(*exchange); ok && x.at.name == name {
		return x
	}
	return nil
}

func (t *Table) queue(name string) *queue {
	h := hashOf(name)
	s := t.queues.get(h)
	if _, ok := s.(*clash); ok {
		s = t.queues.find(byName{}, h, newPlace(name, false))
	}
	if q, ok := s.(*queue); ok && q.at.name == name {
		return q
	}
	return nil
}

// Exchange returns the exchange of that name, the amq.* exchanges included,
// and whether it is there.
func (t *Table) Exchange(name string) (Exchange, bool) {
	if x := t.exchange(name); x != nil {
		return *x.decl, true
	}
	return Exchange{}, false
}

// Queue returns the queue of that name and whether it is there.
func (t *Table) Queue(name string) (Queue, bool) {
	if q := t.queue(name); q != nil {
		d := *q.decl
		d.Args = cloned(d.Args)
		return d, true
	}
	return Queue{}, false
}

// Has reports whether the table holds that very binding.
func (t *Table) Has(b Binding) bool {
	probe := t.probe(b)
	return probe != nil && groupFind(t.into(probe.to), probe) != nil
}

// BindingsFrom yields the bindings that lead from an exchange, in no order.
func (t *Table) BindingsFrom(exchange string) iter.Seq[Binding] {
	return func(yield func(Binding) bool) {
		if x := t.exchange(exchange); x != nil {
			more := true
			x.out.each(func(b *binding) { more = more && yield(b.data()) })
		}
	}
}

// BindingsTo yields the bindings that lead to a queue, in no order.
func (t *Table) BindingsTo(queue string) iter.Seq[Binding] {
	return func(yield func(Binding) bool) {
		if q := t.queue(queue); q != nil {
			more := true
			groupEach(q.in, func(b *binding) { more = more && yield(b.data()) })
		}
	}
}

// Topology returns what the table holds, without the amq.* exchanges, sorted.
// The caller owns it.
func (t *Table) Topology() Topology {
	var top Topology
	t.exchanges.each(func(leaf any) {
		x := leaf.(*exchange)
		if _, ok := Predeclared(x.at.name); !ok {
			top.Exchanges = append(top.Exchanges, *x.decl)
		}
		x.out.each(func(b *binding) { top.Bindings = append(top.Bindings, b.data()) })
	})
	t.queues.each(func(leaf any) {
		d := *leaf.(*queue).decl
		d.Args = cloned(d.Args)
		top.Queues = append(top.Queues, d)
	})
	top.sort()
	return top
}

func compareBindings(a, b Binding) int {
	if c := cmp.Or(cmp.Compare(a.Exchange, b.Exchange), cmp.Compare(a.Queue, b.Queue),
		cmp.Compare(a.ToExchange, b.ToExchange), cmp.Compare(a.Key, b.Key)); c != 0 || len(a.Args)+len(b.Args) == 0 {
		return c
	}
	return cmp.Compare(canonical(a.Args), canonical(b.Args))
}

// into is the bindings that lead to a place.
func (t *Table) into(p *place) group {
	if p.exchange {
		if x := t.exchange(p.name); x != nil {
			return x.in
		}
	} else if q := t.queue(p.name); q != nil {
		return q.in
	}
	return nil
}

// probe is b as it would stand in the table; nil where it could not.
func (t *Table) probe(b Binding) *binding {
	args, errs := b.check()
	x := t.exchange(b.Exchange)
	if len(errs) > 0 || x == nil {
		return nil
	}
	to := newPlace(b.Queue, false)
	if b.ToExchange != "" {
		to = newPlace(b.ToExchange, true)
	}
	return &binding{b.Key, to, x.viaFor(args)}
}

func (x *exchange) viaFor(args map[string]any) *via {
	if len(args) == 0 {
		return x.via
	}
	return newVia(x.at, args)
}

// missing is the error for what a binding names and a table does not hold.
func missing(b Binding, sentinel error, name string) error {
	return fmt.Errorf("%v: %w: %q", b, sentinel, name)
}
