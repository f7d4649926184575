package emulate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// errAgain is a plan's word that what it was prepared for has changed.
var errAgain = errors.New("the topology changed meanwhile")

// change is alter, and when it returns nil, what it found or made is in force
// in every process.
func (c *conn) change(ctx context.Context, prepare func(*state) error, plan func(*topology) ([]Element, error)) error {
	at, err := c.alter(ctx, prepare, plan)
	if err != nil {
		return err
	}
	return c.inForce(ctx, at)
}

// alter brings about what plan says is missing, by compare-and-set: when
// somebody else was faster it reads, prepares and plans again. Prepare may do
// I/O; plan is called with the copy of the topology locked, and puts what
// others lean on first, since the elements are written in several steps. It
// returns the version that it answers for.
func (c *conn) alter(ctx context.Context, prepare func(*state) error, plan func(*topology) ([]Element, error)) (Version, error) {
	for unknown := 0; ; {
		st, err := c.refresh(ctx)
		if err != nil {
			return Version{}, err
		}
		if prepare != nil {
			if err := prepare(st); err != nil {
				return Version{}, err
			}
		}
		c.topo.mu.Lock()
		at := c.topo.now.version
		elements, err := plan(&c.topo)
		c.topo.mu.Unlock()
		if err == nil {
			at, err = c.write(ctx, at, elements)
		}
		switch {
		case err == nil:
			return at, nil
		case errors.Is(err, ErrStale), errors.Is(err, errAgain):
		case errors.Is(err, driver.ErrUnconfirmed):
			// It may have happened: the next plan sees.
			if err := sleep(ctx, c.ctx, backoff(unknown)); err != nil {
				return at, err
			}
			unknown++
		default:
			return at, err
		}
		if err := ctx.Err(); err != nil {
			return at, err
		}
	}
}

// write applies the elements in steps that the store takes.
func (c *conn) write(ctx context.Context, at Version, elements []Element) (Version, error) {
	for len(elements) > 0 {
		n, bytes := 0, 0
		for n < len(elements) && n < MaxElements {
			bytes += len(elements[n].Name) + len(elements[n].Data)
			if n > 0 && bytes > MaxElementBytes {
				break
			}
			n++
		}
		var err error
		if at, err = c.apply(ctx, at, elements[:n]); err != nil {
			return at, err
		}
		elements = elements[n:]
	}
	return at, nil
}

func (c *conn) Declare(ctx context.Context, want routing.Topology) error {
	for _, q := range want.Queues {
		if err := c.cfg.CheckQueue(q); err != nil {
			return err
		}
	}
	s := storages{c: c, made: map[string]*Queue{}, there: map[string]bool{}}
	err := c.change(ctx,
		func(st *state) error { return s.prepare(ctx, st, want.Queues) },
		func(t *topology) ([]Element, error) { return t.planDeclare(want, &s) })
	s.tidy(ctx)
	return err
}

// storages are the queues' storages that one Declare has looked at or made. A
// storage is made before its element, so that a publisher never finds a queue
// without one; of two processes that declare the same queue at once one
// element wins, and the other's storage is removed.
type storages struct {
	c     *conn
	made  map[string]*Queue // by name
	there map[string]bool   // by incarnation
}

func (s *storages) prepare(ctx context.Context, st *state, queues []routing.Queue) error {
	for _, want := range queues {
		if q := st.queues[want.Name]; q != nil {
			if q == s.made[q.Name] || s.made[q.Name] != nil && s.made[q.Name].Incarnation == q.Incarnation {
				continue
			}
			there, known := s.there[q.Incarnation]
			if !known {
				var err error
				if there, err = s.c.store.QueueExists(ctx, q); err != nil {
					return err
				}
				s.there[q.Incarnation] = there
			}
			if there {
				continue
			}
		}
		if s.made[want.Name] != nil {
			continue
		}
		q := &Queue{Queue: want, Incarnation: newIncarnation()}
		s.c.store.Attach(q)
		s.made[want.Name] = q
		if err := s.c.store.CreateQueue(ctx, q); err != nil {
			return fmt.Errorf("queue %q: %w", q.Name, err)
		}
	}
	return nil
}

// tidy removes the storages that no element names. Where that cannot be known
// they stay.
func (s *storages) tidy(ctx context.Context) {
	if len(s.made) == 0 {
		return
	}
	ctx, cancel := within(ctx, undoTime)
	defer cancel()
	st, err := s.c.refresh(ctx)
	if err != nil {
		return
	}
	for _, q := range s.made {
		if now := st.queues[q.Name]; now == nil || now.Incarnation != q.Incarnation {
			if err := s.c.store.DeleteQueue(ctx, q, driver.DeleteOptions{}); err != nil {
				s.c.cfg.Logger.Warn("an unused queue storage could not be removed", "queue", q.Name, "storage", q.Incarnation, "error", err)
			}
		}
	}
}

func newIncarnation() string { return strings.ToLower(rand.Text()) }

func (t *topology) planDeclare(want routing.Topology, s *storages) ([]Element, error) {
	var out []Element
	var add routing.Topology
	seen := map[string]bool{} // in want, which may name things twice
	for _, x := range want.Exchanges {
		if was, ok := t.exchange(x.Name); ok {
			if err := sameExchange(was, x); err != nil {
				return nil, err
			}
			continue
		}
		if seen["x."+x.Name] {
			continue
		}
		seen["x."+x.Name] = true
		if strings.HasPrefix(x.Name, "amq.") || x.Name == "" {
			return nil, fmt.Errorf("%w: exchange %q: the name is reserved", driver.ErrPermission, x.Name)
		}
		e, err := encodeExchange(x)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		add.Exchanges = append(add.Exchanges, x)
	}
	lost := map[string]bool{}
	for _, want := range want.Queues {
		was, made := t.queues[want.Name], s.made[want.Name]
		if was != nil && (made != nil && made.Incarnation == was.Incarnation || s.there[was.Incarnation]) {
			if err := sameQueue(was.Queue, want); err != nil {
				return nil, err
			}
			continue
		}
		if made == nil {
			return nil, errAgain
		}
		if seen["q."+want.Name] {
			continue
		}
		seen["q."+want.Name] = true
		if was != nil {
			if _, known := s.there[was.Incarnation]; !known {
				return nil, errAgain
			}
			lost[want.Name] = true
		}
		e, err := encodeQueue(made)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
		add.Queues = append(add.Queues, routing.Queue{Name: want.Name})
	}
	// The broker lost these queues; their bindings went with them.
	if len(lost) > 0 {
		out = append(t.unbinding(func(b routing.Binding) bool { return lost[b.Queue] }), out...)
	}
	bindings, err := t.binding(want, func(e string, b routing.Binding) bool {
		_, ok := t.bindings[e]
		return ok && !lost[b.Queue]
	})
	if err != nil {
		return nil, err
	}
	for _, b := range bindings {
		e, _ := encodeBinding(b)
		out = append(out, e)
	}
	add.Bindings = bindings
	// What the table would refuse must not reach the broker.
	if _, err := t.now.table.Apply(add, routing.Topology{}); err != nil {
		return nil, err
	}
	return out, nil
}

// binding is what of want's bindings is missing. Their ends must stand or be
// declared beside them.
func (t *topology) binding(want routing.Topology, there func(element string, b routing.Binding) bool) ([]routing.Binding, error) {
	isNew := func(name string) bool {
		return slices.ContainsFunc(want.Exchanges, func(x routing.Exchange) bool { return x.Name == name })
	}
	var out []routing.Binding
	seen := map[string]bool{}
	for _, b := range want.Bindings {
		e, err := encodeBinding(b)
		if err != nil {
			return nil, err
		}
		if seen[e.Name] {
			continue
		}
		seen[e.Name] = true
		if there(e.Name, b) {
			continue
		}
		for _, x := range []string{b.Exchange, b.ToExchange} {
			if x == routing.DefaultExchange || x == "" && b.Exchange == "" {
				return nil, fmt.Errorf("%w: the default exchange cannot be bound", driver.ErrPermission)
			}
			if x == "" {
				continue
			}
			if _, ok := t.exchange(x); !ok && !isNew(x) {
				return nil, fmt.Errorf("exchange %q: %w", x, driver.ErrNotFound)
			}
		}
		if b.Queue != "" && t.queues[b.Queue] == nil &&
			!slices.ContainsFunc(want.Queues, func(q routing.Queue) bool { return q.Name == b.Queue }) {
			return nil, fmt.Errorf("queue %q: %w", b.Queue, driver.ErrNotFound)
		}
		out = append(out, b)
	}
	return out, nil
}

// exchange is a declared exchange or one of those that are always there.
func (t *topology) exchange(name string) (routing.Exchange, bool) {
	if x, ok := routing.Predeclared(name); ok {
		return x, true
	}
	x, ok := t.exchanges[name]
	return x, ok
}

// unbinding removes the bindings that match.
func (t *topology) unbinding(match func(routing.Binding) bool) []Element {
	var out []Element
	for name, b := range t.bindings {
		if match(b) {
			out = append(out, Element{Name: name})
		}
	}
	return out
}

func (c *conn) Bind(ctx context.Context, bs []routing.Binding) error {
	return c.change(ctx,
		func(st *state) error {
			for _, b := range bs {
				if err := c.probe(ctx, st, b.Queue); err != nil {
					return err
				}
			}
			return nil
		},
		func(t *topology) ([]Element, error) {
			return t.planDeclare(routing.Topology{Bindings: bs}, &storages{})
		})
}

// probe finds out that a transient queue was lost in a restart of the broker.
func (c *conn) probe(ctx context.Context, st *state, name string) error {
	q := st.queues[name]
	if q == nil || !q.Transient {
		return nil
	}
	there, err := c.store.QueueExists(ctx, q)
	if err != nil || there {
		return err
	}
	return c.forget(ctx, q)
}

func (c *conn) Unbind(ctx context.Context, bs []routing.Binding) error {
	return c.change(ctx, nil, func(t *topology) ([]Element, error) {
		var out []Element
		for _, b := range bs {
			e, err := encodeBinding(b)
			if err != nil {
				return nil, err
			}
			if _, ok := t.bindings[e.Name]; ok {
				out = append(out, Element{Name: e.Name})
			}
		}
		return out, nil
	})
}

// DeleteQueue removes the storage first, which is where the conditions hold
// or not; publishers that still route to it find it gone and route again.
func (c *conn) DeleteQueue(ctx context.Context, name string, o driver.DeleteOptions) error {
	st, err := c.refresh(ctx)
	if err != nil {
		return err
	}
	q := st.queues[name]
	if q == nil {
		return c.inForce(ctx, st.version)
	}
	if err := c.store.DeleteQueue(ctx, q, o); err != nil {
		return fmt.Errorf("queue %q: %w", name, err)
	}
	return c.forget(ctx, q)
}

// forget removes a queue whose storage is gone from the topology, unless it
// was made anew meanwhile.
func (c *conn) forget(ctx context.Context, q *Queue) error {
	return c.change(ctx, nil, without(q))
}

func without(q *Queue) func(*topology) ([]Element, error) {
	return func(t *topology) ([]Element, error) {
		if now := t.queues[q.Name]; now == nil || now.Incarnation != q.Incarnation {
			return nil, nil
		}
		// The bindings first: no step may leave one that leads nowhere.
		return append(t.unbinding(func(b routing.Binding) bool { return b.Queue == q.Name }),
			Element{Name: queueName(q.Name)}), nil
	}
}

func (c *conn) DeleteExchange(ctx context.Context, name string, o driver.DeleteOptions) error {
	if name == "" || strings.HasPrefix(name, "amq.") {
		return fmt.Errorf("exchange %q: %w: it is always there", name, driver.ErrPermission)
	}
	return c.change(ctx, nil, func(t *topology) ([]Element, error) {
		if _, ok := t.exchanges[name]; !ok {
			return nil, nil
		}
		if o.IfUnused && len(t.unbinding(func(b routing.Binding) bool { return b.Exchange == name })) > 0 {
			return nil, fmt.Errorf("exchange %q: %w: bindings lead from it", name, driver.ErrInUse)
		}
		return append(t.unbinding(func(b routing.Binding) bool { return b.Exchange == name || b.ToExchange == name }),
			Element{Name: exchangeName(name)}), nil
	})
}

func (c *conn) Verify(ctx context.Context, want routing.Topology) error {
	st, err := c.refresh(ctx)
	if err != nil {
		return err
	}
	for _, q := range want.Queues {
		if q := st.queues[q.Name]; q != nil {
			there, err := c.store.QueueExists(ctx, q)
			if err != nil {
				return err
			}
			if !there {
				return fmt.Errorf("queue %q: %w", q.Name, driver.ErrNotFound)
			}
		}
	}
	t := &c.topo
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range want.Exchanges {
		was, ok := t.exchange(x.Name)
		if !ok {
			return fmt.Errorf("exchange %q: %w", x.Name, driver.ErrNotFound)
		}
		if err := sameExchange(was, x); err != nil {
			return err
		}
	}
	for _, q := range want.Queues {
		was := t.queues[q.Name]
		if was == nil {
			return fmt.Errorf("queue %q: %w", q.Name, driver.ErrNotFound)
		}
		if err := sameQueue(was.Queue, q); err != nil {
			return err
		}
	}
	for _, b := range want.Bindings {
		e, err := encodeBinding(b)
		if err != nil {
			return err
		}
		if _, ok := t.bindings[e.Name]; !ok {
			return fmt.Errorf("binding of exchange %q to %q with key %q: %w", b.Exchange, b.Queue+b.ToExchange, b.Key, driver.ErrNotFound)
		}
	}
	return nil
}

func (c *conn) Topology(ctx context.Context) (routing.Topology, error) {
	st, err := c.refresh(ctx)
	if err != nil {
		return routing.Topology{}, err
	}
	for name := range st.queues {
		if err := c.probe(ctx, st, name); err != nil {
			return routing.Topology{}, err
		}
	}
	t := &c.topo
	t.mu.Lock()
	defer t.mu.Unlock()
	var out routing.Topology
	for _, name := range slices.Sorted(maps.Keys(t.exchanges)) {
		out.Exchanges = append(out.Exchanges, t.exchanges[name])
	}
	for _, name := range slices.Sorted(maps.Keys(t.queues)) {
		q := t.queues[name].Queue
		q.Args = maps.Clone(q.Args)
		out.Queues = append(out.Queues, q)
	}
	for _, b := range t.bindings {
		b.Args = maps.Clone(b.Args)
		out.Bindings = append(out.Bindings, b)
	}
	slices.SortFunc(out.Bindings, compareBindings)
	return out, nil
}
