package emulate

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// state is the topology at one version, immutable.
type state struct {
	version Version
	table   *routing.Table
	queues  map[string]*Queue
	// err, when set, is why nothing can be routed: a newer version of polymq
	// has written what this one cannot read.
	err error
}

// topology is this process's copy of what the broker holds.
type topology struct {
	c       *conn
	loading chan struct{} // cap 1: held by the one who changes the copy
	writes  atomic.Int32  // changes of this process's own that are under way

	// Guarded by mu, for planning changes; by name, bindings by element name.
	mu        sync.Mutex
	exchanges map[string]routing.Exchange
	queues    map[string]*Queue
	bindings  map[string]routing.Binding
	names     map[string]string // what an exchange's or queue's element is called → its name
	foreign   map[string]error  // elements that this version cannot read
	dangling  bool              // a binding's end is missing, so it is not in the table

	now *state // what the publishers see of it
}

func (t *topology) init(c *conn) {
	t.c = c
	t.loading = make(chan struct{}, 1)
	t.clear()
	table, err := routing.NewTable(routing.Topology{})
	t.now = &state{table: table, err: err, queues: t.queues}
}

func (t *topology) clear() {
	t.exchanges = map[string]routing.Exchange{}
	t.queues = map[string]*Queue{}
	t.bindings = map[string]routing.Binding{}
	t.names = map[string]string{}
	t.foreign = map[string]error{}
}

func (t *topology) current() *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.now
}

// refresh makes the copy at least as new as every change that was reported
// before the call began, and returns it.
func (c *conn) refresh(ctx context.Context) (*state, error) {
	t := &c.topo
	if err := t.lock(ctx); err != nil {
		return nil, err
	}
	defer t.unlock()
	ch, err := c.store.LoadTopology(ctx, t.current().version)
	if err != nil {
		return nil, err
	}
	st := t.absorb(ch)
	return st, st.err
}

func (t *topology) lock(ctx context.Context) error {
	if t.c.ctx.Err() != nil {
		return driver.ErrClosed
	}
	select {
	case t.loading <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t *topology) unlock() { <-t.loading }

// absorb puts changes into the copy and shows the result to the publishers.
func (t *topology) absorb(ch Changes) *state {
	t.mu.Lock()
	defer t.mu.Unlock()
	if ch.Version == t.now.version {
		return t.now
	}
	if began := t.now.version.Epoch; t.c.lease.lapsed(time.Now()) || began != "" && began != ch.Version.Epoch {
		t.c.own.lost(t) // others may have deleted what is ours, or the broker has forgotten it
		if began != "" && began != ch.Version.Epoch {
			t.c.restorer.begin()
		}
	}
	old := t.queues
	queues := ch.Full || slices.ContainsFunc(ch.Elements, func(e Element) bool { return strings.HasPrefix(e.Name, "q.") })
	if ch.Full {
		t.clear()
	} else if queues {
		t.queues = maps.Clone(t.queues) // publishers read the old one
	}
	var add, remove routing.Topology
	rebuild := ch.Full || t.dangling
	for _, e := range ch.Elements {
		if t.take(e, old, &add, &remove) {
			rebuild = true
		}
	}
	next := &state{version: ch.Version, queues: t.queues}
	for _, err := range t.foreign {
		next.err = err
	}
	if !rebuild && next.err == nil && t.now.err == nil {
		// Where a small step fails the whole is the judge.
		next.table, next.err = t.now.table.Apply(add, remove)
		rebuild = next.err != nil
	}
	if rebuild || next.table == nil {
		next.err = nil
		for _, err := range t.foreign {
			next.err = err
		}
		if next.err == nil {
			next.table, next.err = routing.NewTable(t.whole())
		}
	}
	t.now = next
	t.c.restorer.see(next)
	t.c.lease.swap(next)
	if queues {
		t.c.janitor.see(next)
	}
	t.c.delays.look(next)
	return next
}

// take puts one element into the copy, notes what it means for the table, and
// reports whether the table must be built anew.
func (t *topology) take(e Element, old map[string]*Queue, add, remove *routing.Topology) (rebuild bool) {
	delete(t.foreign, e.Name)
	var el *element
	var x routing.Exchange
	var b routing.Binding
	var q *Queue
	if e.Data != nil {
		var err error
		if el, err = decodeElement(e.Data); err == nil {
			switch {
			case el.Exchange != nil:
				x, err = el.exchange()
			case el.Binding != nil:
				b, err = el.binding()
			case el.Queue != nil:
				q, err = el.queue()
			}
		}
		if err != nil {
			t.foreign[e.Name] = err
			el = nil
		}
	}
	kind, _, _ := strings.Cut(e.Name, ".")
	switch kind {
	case "x":
		name := t.names[e.Name]
		was, had := t.exchanges[name]
		delete(t.exchanges, name)
		delete(t.names, e.Name)
		if had {
			remove.Exchanges = append(remove.Exchanges, was)
		}
		if el == nil || el.Exchange == nil {
			break
		}
		t.names[e.Name], t.exchanges[x.Name] = x.Name, x
		add.Exchanges = append(add.Exchanges, x)
		return had
	case "q":
		name := t.names[e.Name]
		_, had := t.queues[name]
		delete(t.queues, name)
		delete(t.names, e.Name)
		if el == nil || el.Queue == nil {
			if had && name != delayedQueue {
				remove.Queues = append(remove.Queues, routing.Queue{Name: name})
			}
			break
		}
		was := old[q.Name]
		switch {
		case was == nil || was.Incarnation != q.Incarnation:
			t.c.store.Attach(q)
		case was.expiring == q.expiring:
			q = was
		default:
			q.Handle = was.Handle
		}
		t.names[e.Name], t.queues[q.Name] = q.Name, q
		if !had && q.Name != delayedQueue { // nothing is routed there
			add.Queues = append(add.Queues, routing.Queue{Name: q.Name})
		}
	case "b":
		was, had := t.bindings[e.Name]
		switch {
		case el == nil && had:
			delete(t.bindings, e.Name)
			remove.Bindings = append(remove.Bindings, was)
		case el != nil && el.Binding != nil && !had:
			t.bindings[e.Name] = b
			add.Bindings = append(add.Bindings, b)
		}
	default:
		if e.Data != nil {
			t.foreign[e.Name] = errNewer
		}
	}
	return false
}

// whole is the topology as the table needs it. No change leaves a binding that
// leads from or to nothing; should one be there, the rest still routes.
func (t *topology) whole() routing.Topology {
	var w routing.Topology
	for _, x := range t.exchanges {
		w.Exchanges = append(w.Exchanges, x)
	}
	for name := range t.queues {
		if name != delayedQueue {
			w.Queues = append(w.Queues, routing.Queue{Name: name})
		}
	}
	t.dangling = false
	for _, b := range t.bindings {
		_, from := t.exchange(b.Exchange)
		to := t.queues[b.Queue] != nil
		if b.Queue == "" {
			_, to = t.exchange(b.ToExchange)
		}
		if from && to {
			w.Bindings = append(w.Bindings, b)
		} else {
			t.dangling = true
		}
	}
	return w
}
