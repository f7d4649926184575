package emulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

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

// removal removes the queues that match, and before them their bindings: no
// step may leave one that leads nowhere.
func (t *topology) removal(match func(*Queue) bool) []Element {
	gone := map[string]bool{}
	var out []Element
	for name, q := range t.queues {
		if match(q) {
			gone[name] = true
			out = append(out, Element{Name: queueName(name)})
		}
	}
	if len(out) == 0 {
		return nil
	}
	return append(t.unbinding(func(b routing.Binding) bool { return gone[b.Queue] }), out...)
}

func (c *conn) Bind(ctx context.Context, bs []routing.Binding) error {
	for _, b := range bs {
		if err := reserved(b.Queue); err != nil {
			return err
		}
	}
	err := c.change(ctx,
		func(st *state) error {
			for _, b := range bs {
				comes, err := c.probe(ctx, st, b.Queue)
				if err == nil && comes {
					// Made anew, it has no binding but those that it had.
					err = cmp.Or(sleep(ctx, c.ctx, backoff(0)), errAgain)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
		func(t *topology) ([]Element, error) {
			return t.planDeclare(routing.Topology{Bindings: bs}, &storages{})
		})
	if err == nil {
		c.restorer.declared.Add(routing.Topology{Bindings: bs})
	}
	return err
}

// probe finds out that a transient queue was lost in a restart of the broker, and
// whether this connection is about to make it anew.
func (c *conn) probe(ctx context.Context, st *state, name string) (comes bool, err error) {
	q := st.queues[name]
	if q == nil || !q.Transient {
		return false, nil
	}
	there, err := c.store.QueueExists(ctx, q)
	if err != nil || there {
		return false, err
	}
	if c.restorer.remakes(name) {
		return true, nil
	}
	return false, c.forget(ctx, q)
}

func (c *conn) Unbind(ctx context.Context, bs []routing.Binding) error {
	c.restorer.declared.Unbind(bs)
	return c.change(ctx, nil, func(t *topology) ([]Element, error) {
		var out []Element
		for _, b := range bs {
			if err := c.locked(t.queues[b.Queue]); err != nil {
				return nil, err
			}
			name, _, err := bindingName(b)
			if err != nil {
				return nil, err
			}
			if _, ok := t.bindings[name]; ok {
				out = append(out, Element{Name: name})
			}
		}
		return out, nil
	})
}

// DeleteQueue removes the storage first, which is where the conditions hold
// or not; publishers that still route to it find it gone and route again.
func (c *conn) DeleteQueue(ctx context.Context, name string, o driver.DeleteOptions) error {
	if err := reserved(name); err != nil {
		return err
	}
	st, err := c.refresh(ctx)
	if err != nil {
		return err
	}
	if q := st.queues[name]; q != nil && c.mine(q) || c.own.restores(name) {
		if err := c.own.hold(ctx); err != nil {
			return err
		}
		defer c.own.release()
		if st, err = c.refresh(ctx); err != nil {
			return err
		}
	}
	q := st.queues[name]
	if q == nil {
		c.own.forget(ctx, name)
		c.restorer.declared.DeleteQueue(name)
		return c.inForce(ctx, st.version)
	}
	if err := c.locked(q); err != nil {
		return err
	}
	if err := c.store.DeleteQueue(ctx, q, DeleteOptions{DeleteOptions: o}); err != nil {
		return fmt.Errorf("queue %q: %w", name, err)
	}
	c.own.forget(ctx, name)
	c.restorer.declared.DeleteQueue(name)
	return c.change(ctx, nil, without(q))
}

// forget removes a queue that the broker has lost from the topology, and when
// it returns nobody routes to it.
func (c *conn) forget(ctx context.Context, q *Queue) error {
	at, err := c.strike(ctx, q)
	if err != nil {
		return err
	}
	if c.mine(q) {
		return sleep(ctx, c.ctx, backoff(0)) // it is back soon
	}
	return c.inForce(ctx, at)
}

// strike removes a queue that the broker has lost from the topology, unless it
// was made anew meanwhile, and returns the version that shows so. An exclusive
// one is its owner's, who has it made anew.
func (c *conn) strike(ctx context.Context, q *Queue) (Version, error) {
	switch {
	case c.mine(q):
		c.own.loseAll()
	case q.owner == "":
		return c.alter(ctx, nil, without(q))
	}
	return c.topo.current().version, nil
}

func without(q *Queue) func(*topology) ([]Element, error) {
	return func(t *topology) ([]Element, error) {
		return t.removal(func(now *Queue) bool { return now.Name == q.Name && now.Incarnation == q.Incarnation }), nil
	}
}

func (c *conn) DeleteExchange(ctx context.Context, name string, o driver.DeleteOptions) error {
	if name == "" || strings.HasPrefix(name, "amq.") {
		return fmt.Errorf("exchange %q: %w: it is always there", name, driver.ErrPermission)
	}
	err := c.change(ctx, nil, func(t *topology) ([]Element, error) {
		if _, ok := t.exchanges[name]; !ok {
			return nil, nil
		}
		if o.IfUnused && len(t.unbinding(func(b routing.Binding) bool { return b.Exchange == name })) > 0 {
			return nil, fmt.Errorf("exchange %q: %w: bindings lead from it", name, driver.ErrInUse)
		}
		return append(t.unbinding(func(b routing.Binding) bool { return b.Exchange == name || b.ToExchange == name }),
			Element{Name: exchangeName(name)}), nil
	})
	if !errors.Is(err, driver.ErrInUse) { // else it may be gone, whatever the error
		c.restorer.declared.DeleteExchange(name)
	}
	return err
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
		name, _, err := bindingName(b)
		if err != nil {
			return err
		}
		if _, ok := t.bindings[name]; !ok {
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
		if _, err := c.probe(ctx, st, name); err != nil {
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
		if name == delayedQueue {
			continue
		}
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
