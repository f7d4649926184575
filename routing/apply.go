package routing

import (
	"errors"
	"fmt"
)

// NewTable compiles a topology. Every element must be legal; a kind that this
// version does not know is (Route fails there), so that a table can be loaded
// from a broker that a later version uses. All problems are reported at once:
// they wrap ErrInvalid, or ErrNoExchange or ErrNoQueue for a binding that names
// what is not in t.
func NewTable(t Topology) (*Table, error) {
	e := edit{own: true}
	for _, x := range predeclared {
		e.putExchange(x)
	}
	return e.apply(t, Topology{})
}

// Apply returns the table after a change: what remove names is taken out, then
// what add names is put in. t itself stays as it is, and shares with the new
// table all but the paths to the change, so that a small change is cheap
// however large the table.
//
// Removing an exchange or queue, by its name alone, removes its bindings too;
// removing what is not there is nothing. Adding an exchange or queue that
// stands differently replaces its declaration and keeps its bindings. The
// errors are those of NewTable, and there is no table then.
func (t *Table) Apply(add, remove Topology) (*Table, error) {
	e := edit{t: *t}
	return e.apply(add, remove)
}

// An edit is a table in the making.
type edit struct {
	t    Table
	own  bool         // all of it was made by this edit, and may change in place
	made map[any]bool // else the exchanges and queues that were
	errs []error
}

func (e *edit) apply(add, remove Topology) (*Table, error) {
	for _, b := range remove.Bindings {
		if probe := e.t.probe(b); probe != nil {
			if found := groupFind(e.t.into(probe.to), probe); found != nil {
				e.dropBinding(found)
			}
		}
	}
	for _, q := range remove.Queues {
		e.dropQueue(q.Name)
	}
	for _, x := range remove.Exchanges {
		if _, ok := Predeclared(x.Name); ok {
			e.errs = append(e.errs, fmt.Errorf("exchange %q: Name: %w: it is always there and cannot be removed", x.Name, ErrInvalid))
			continue
		}
		e.dropExchange(x.Name)
	}
	for _, x := range add.Exchanges {
		if errs := x.check(); len(errs) > 0 {
			e.errs = append(e.errs, errs...)
			continue
		}
		e.putExchange(x)
	}
	for _, q := range add.Queues {
		if errs := q.check(); len(errs) > 0 {
			e.errs = append(e.errs, errs...)
			continue
		}
		e.putQueue(q)
	}
	for _, b := range add.Bindings {
		e.putBinding(b)
	}
	if len(e.errs) > 0 {
		return nil, errors.Join(e.errs...)
	}
	seal := func(leaf any) {
		if x, ok := leaf.(*exchange); ok {
			x.out = x.out.sealed()
		}
	}
	if e.own {
		e.t.exchanges.each(seal)
	}
	for leaf := range e.made {
		seal(leaf)
	}
	t := e.t
	return &t, nil
}

func (e *edit) putExchange(decl Exchange) {
	x := e.t.exchange(decl.Name)
	switch {
	case x == nil:
		at := newPlace(decl.Name, true)
		e.set(&exchange{decl: &decl, at: at, via: newVia(at, nil), out: newIndex(&decl)})
	case x.decl.differs(decl) != "":
		was := x.decl
		x = e.mine(x)
		x.decl = &decl
		if was.Kind != decl.Kind || !sameArgs(was.Args, decl.Args) {
			out := newIndex(&decl)
			x.out.each(func(b *binding) {
				if err := b.data().checkKind(decl.Kind); err != nil {
					e.errs = append(e.errs, err)
				}
				out = out.with(b, true)
			})
			x.out = out.sealed()
		}
	}
}

func (e *edit) putQueue(decl Queue) {
	q := e.t.queue(decl.Name)
	if q != nil && q.decl.differs(decl) == "" {
		return
	}
	decl.Args, _ = normalArgs(decl.Args)
	if q == nil {
		e.setQueue(&queue{decl: &decl, at: newPlace(decl.Name, false)})
		return
	}
	e.myQueue(q).decl = &decl
}

// set puts in what this edit has made.
func (e *edit) set(x *exchange) {
	e.note(x)
	e.t.exchanges = e.t.exchanges.put(byName{}, x.at.hash, x, e.own)
}

func (e *edit) setQueue(q *queue) {
	e.note(q)
	e.t.queues = e.t.queues.put(byName{}, q.at.hash, q, e.own)
}

func (e *edit) note(leaf any) {
	if e.own {
		return
	}
	if e.made == nil {
		e.made = map[any]bool{}
	}
	e.made[leaf] = true
}

// mine is the exchange, which stands, as one that may change in place.
func (e *edit) mine(x *exchange) *exchange {
	if e.own || e.made[x] {
		return x
	}
	c := *x
	e.set(&c)
	return &c
}

// myQueue is mine for queues.
func (e *edit) myQueue(q *queue) *queue {
	if e.own || e.made[q] {
		return q
	}
	c := *q
	e.setQueue(&c)
	return &c
}

func (e *edit) putBinding(d Binding) {
	args, errs := d.check()
	if len(errs) > 0 {
		e.errs = append(e.errs, errs...)
		return
	}
	x := e.t.exchange(d.Exchange)
	if x == nil {
		e.errs = append(e.errs, missing(d, ErrNoExchange, d.Exchange))
		return
	}
	if err := d.checkKind(x.decl.Kind); err != nil {
		e.errs = append(e.errs, err)
		return
	}
	var to *place
	if d.ToExchange != "" {
		y := e.t.exchange(d.ToExchange)
		if y == nil {
			e.errs = append(e.errs, missing(d, ErrNoExchange, d.ToExchange))
			return
		}
		to = y.at
	} else {
		q := e.t.queue(d.Queue)
		if q == nil {
			e.errs = append(e.errs, missing(d, ErrNoQueue, d.Queue))
			return
		}
		to = q.at
	}
	b := &binding{d.Key, to, x.viaFor(args)}
	if groupFind(e.t.into(to), b) != nil {
		return
	}
	x = e.mine(x)
	x.out = x.out.with(b, e.own)
	e.changeIn(to, func(g group) group { return groupPut(g, b, e.own) })
}

func (e *edit) changeIn(to *place, change func(group) group) {
	if to.exchange {
		x := e.mine(e.t.exchange(to.name))
		x.in = change(x.in)
		return
	}
	q := e.myQueue(e.t.queue(to.name))
	q.in = change(q.in)
}

// dropBinding removes a binding that stands.
func (e *edit) dropBinding(b *binding) {
	x := e.mine(e.t.exchange(b.via.from.name))
	x.out = x.out.without(b)
	e.changeIn(b.to, func(g group) group { return groupDel(g, b) })
}

func (e *edit) dropQueue(name string) {
	q := e.t.queue(name)
	if q == nil {
		return
	}
	groupEach(q.in, e.dropBinding)
	e.t.queues = e.t.queues.del(byName{}, q.at.hash, q)
}

func (e *edit) dropExchange(name string) {
	x := e.t.exchange(name)
	if x == nil {
		return
	}
	groupEach(x.in, func(b *binding) {
		if b.via.from != x.at {
			e.dropBinding(b)
		}
	})
	// What leads from it goes with it: only the other ends must hear of that.
	x.out.each(func(b *binding) {
		if b.to != x.at {
			e.changeIn(b.to, func(g group) group { return groupDel(g, b) })
		}
	})
	delete(e.made, e.t.exchange(name))
	e.t.exchanges = e.t.exchanges.del(byName{}, x.at.hash, x)
}
