package emulate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func (c *conn) Declare(ctx context.Context, want routing.Topology) error {
	if err := c.Check(want); err != nil {
		return err
	}
	if slices.ContainsFunc(want.Queues, func(q routing.Queue) bool { return q.Exclusive }) {
		// The record must be there before a queue names its client as owner.
		if err := c.lease.start(ctx); err != nil {
			return err
		}
	}
	at, err := c.declare(ctx, want)
	if err != nil {
		return err
	}
	c.restorer.declared.Add(want)
	return c.inForce(ctx, at)
}

// declare makes what is missing, without waiting for it to be in force.
func (c *conn) declare(ctx context.Context, want routing.Topology) (Version, error) {
	s := storages{c: c, made: map[string]*Queue{}, there: map[string]bool{}}
	at, err := c.alter(ctx,
		func(st *state) error { return s.prepare(ctx, st, want.Queues) },
		func(t *topology) ([]Element, error) { return t.planDeclare(want, &s) })
	s.tidy(ctx)
	return at, err
}

// Check implements driver.Checker.
func (c *conn) Check(want routing.Topology) error {
	for _, x := range want.Exchanges {
		if x.Kind.Custom() {
			continue // what its arguments may be, its rule has said
		}
		for name := range x.Args {
			return fmt.Errorf("%w: exchange %q has the argument %q, which this backend does not know: remove it", errors.ErrUnsupported, x.Name, name)
		}
	}
	for _, q := range want.Queues {
		if err := reserved(q.Name); err != nil {
			return err
		}
		if err := c.cfg.CheckQueue(q); err != nil {
			return err
		}
		for _, f := range []struct {
			feature driver.Feature
			field   string
			asked   bool
		}{
			{driver.MaxLength, "MaxLength or MaxBytes", q.MaxLength > 0 || q.MaxBytes > 0},
			{driver.Priority, "MaxPriority", q.MaxPriority > 0},
			{driver.SingleActive, "SingleActiveConsumer", q.SingleActiveConsumer},
		} {
			if f.asked && !c.features.Has(f.feature) {
				return fmt.Errorf("%w: queue %q has %s, which %s does not have: leave it out", errors.ErrUnsupported, q.Name, f.field, c.features.Backend)
			}
		}
	}
	for _, b := range want.Bindings {
		if err := reserved(b.Queue); err != nil {
			return err
		}
	}
	return nil
}

// reserved refuses the queue that is the library's own.
func reserved(queue string) error {
	if queue == delayedQueue {
		return fmt.Errorf("queue %q: %w: the library keeps delayed messages there", queue, driver.ErrPermission)
	}
	return nil
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
			if err := s.c.locked(q); err != nil {
				return err
			}
			if q == s.made[q.Name] || s.made[q.Name] != nil && s.made[q.Name].Incarnation == q.Incarnation {
				continue
			}
			there, known := s.there[q.Incarnation]
			if !known {
				var err error
				if there, err = s.look(ctx, q); err != nil {
					return err
				}
				s.there[q.Incarnation] = there
			}
			if there {
				continue
			}
			if s.c.mine(q) {
				delete(s.there, q.Incarnation)
				if err := s.c.forget(ctx, q); err != nil {
					return err
				}
				return errAgain
			}
		}
		if s.made[want.Name] != nil {
			continue
		}
		q := &Queue{Queue: want, Incarnation: newIncarnation()}
		if q.Exclusive {
			q.owner = s.c.lease.client
		}
		s.c.store.Attach(q)
		s.made[want.Name] = q
		if err := s.c.store.CreateQueue(ctx, q); err != nil {
			if errors.Is(err, driver.ErrPermission) {
				delete(s.made, want.Name) // nothing was made
			}
			return fmt.Errorf("queue %q: %w", q.Name, err)
		}
	}
	return nil
}

// look reports whether a queue's storage is there. To be declared again is to
// be used.
func (s *storages) look(ctx context.Context, q *Queue) (there bool, err error) {
	if q.Expires == 0 {
		return s.c.store.QueueExists(ctx, q)
	}
	err = s.c.store.Touch(ctx, q)
	if errors.Is(err, ErrGone) {
		return false, nil
	}
	return err == nil, err
}

// tidy removes the storages that no element names. Where that cannot be known
// they stay.
func (s *storages) tidy(ctx context.Context) {
	if len(s.made) == 0 {
		return
	}
	ctx, cancel := within(ctx, undoTime)
	defer cancel()
	defer context.AfterFunc(s.c.ctx, cancel)()
	st, err := s.c.refresh(ctx)
	if err != nil {
		return
	}
	for _, q := range s.made {
		if now := st.queues[q.Name]; now == nil || now.Incarnation != q.Incarnation {
			if err := s.c.store.DeleteQueue(ctx, q, DeleteOptions{}); err != nil {
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
	for _, b := range want.Bindings {
		if err := t.c.locked(t.queues[b.Queue]); err != nil {
			return nil, err
		}
	}
	lost := map[string]bool{}
	for _, want := range want.Queues {
		was, made := t.queues[want.Name], s.made[want.Name]
		if err := t.c.locked(was); err != nil {
			return nil, err
		}
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
	missing, wanted, err := t.missing(want)
	if err != nil {
		return nil, err
	}
	add.Bindings = missing
	// The broker lost these queues; their bindings went with them. Those that are
	// wanted stay: whoever publishes while this is being written must not miss one.
	if len(lost) > 0 {
		gone := t.unbinding(func(b routing.Binding) bool { return lost[b.Queue] })
		gone = slices.DeleteFunc(gone, func(e Element) bool { return wanted[e.Name] })
		out = append(gone, out...)
	}
	for _, b := range add.Bindings {
		e, err := encodeBinding(b)
		if err != nil {
			return nil, err
		}
		out = append(out, e)
	}
	// What the table would refuse must not reach the broker.
	if _, err := t.now.table.Apply(add, routing.Topology{}); err != nil {
		return nil, err
	}
	return out, nil
}

// missing is what of want's bindings is missing, and the names of them all. Their
// ends must stand or be declared beside them.
func (t *topology) missing(want routing.Topology) (out []routing.Binding, all map[string]bool, err error) {
	exchanges, queues := map[string]bool{}, map[string]bool{}
	for _, x := range want.Exchanges {
		exchanges[x.Name] = true
	}
	for _, q := range want.Queues {
		queues[q.Name] = true
	}
	all = map[string]bool{}
	for _, b := range want.Bindings {
		name, _, err := bindingName(b)
		if err != nil {
			return nil, nil, err
		}
		again := all[name]
		all[name] = true
		if _, there := t.bindings[name]; there || again {
			continue
		}
		for _, x := range []string{b.Exchange, b.ToExchange} {
			if x == routing.DefaultExchange || x == "" && b.Exchange == "" {
				return nil, nil, fmt.Errorf("%w: the default exchange cannot be bound", driver.ErrPermission)
			}
			if x == "" {
				continue
			}
			if _, ok := t.exchange(x); !ok && !exchanges[x] {
				return nil, nil, fmt.Errorf("exchange %q: %w", x, driver.ErrNotFound)
			}
		}
		if b.Queue != "" && t.queues[b.Queue] == nil && !queues[b.Queue] {
			return nil, nil, fmt.Errorf("queue %q: %w", b.Queue, driver.ErrNotFound)
		}
		out = append(out, b)
	}
	return out, all, nil
}
