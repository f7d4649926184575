package emulate

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// restorer makes anew what this connection has declared and the broker has lost,
// when the connection is back or the topology is not the one that it was. Until
// that is done nothing is routed: publishes wait as they do without a lease, so
// that none misses a queue which is about to stand again. Where it takes long, as
// with a queue whose server is down, it is enough that the topology names
// everything: what is routed to that queue waits for it, as for any that does not
// take it, and all else goes on. A goroutine does it, which is there only meanwhile.
type restorer struct {
	c        *conn
	declared driver.Declared
	pending  atomic.Bool // nothing is routed

	ctx  context.Context // ends before the connection's
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	running bool
	again   bool            // what runs may have looked too early
	awaited map[string]bool // queues that may not stand yet; "" is for what is no queue's
}

// together is how many queues are looked at at once, as long as nothing is wrong.
const together = 20

func (r *restorer) init(c *conn) {
	r.c = c
	r.ctx, r.stop = context.WithCancel(context.Background())
}

// begin has everything looked at. It does not block.
func (r *restorer) begin() {
	if r.declared.Empty() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return
	}
	r.declared.Back()
	r.pending.Store(true)
	if r.again = true; !r.running {
		r.running = true
		r.work.Go(r.run)
	}
}

func (r *restorer) run() {
	for failed, warned := 0, false; ; {
		all, more := r.next()
		if !more {
			return
		}
		if all {
			warned = false
		}
		err := r.round(all)
		if err == nil {
			failed = 0
			continue
		}
		if !warned && !errors.Is(err, errAgain) && r.ctx.Err() == nil {
			r.c.cfg.Logger.Warn("what was declared cannot be made anew yet; trying again", "error", err)
			warned = true
		}
		_ = sleep(r.ctx, r.ctx, backoff(failed))
		failed++
	}
}

// next reports that there is something to do, and whether it is all; otherwise
// routing goes on, if it did not before.
func (r *restorer) next() (all, more bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() == nil && (r.again || len(r.awaited) > 0) {
		all, r.again = r.again, false
		return all, true
	}
	r.running, r.awaited = false, nil
	r.pending.Store(false)
	signal(r.c.retrier.wake)
	return false, false
}

// round looks at what may not stand yet. As long as the topology lacks something of
// it, nothing is routed.
func (r *restorer) round(all bool) error {
	if all {
		parts := r.parts(true, together)
		for len(parts) > 0 && r.make(parts[0]) == nil {
			parts = parts[1:]
		}
	}
	var named []routing.Topology
	var failed error
	for _, p := range r.parts(false, 1) {
		if r.c.topo.has(p) {
			named = append(named, p)
		} else if err := r.make(p); err != nil {
			failed = err
		}
	}
	if failed == nil {
		r.release()
	}
	for _, p := range named {
		if r.pending.Load() {
			return cmp.Or(failed, errAgain) // what is lacking is more urgent
		}
		if err := r.make(p); err != nil {
			failed = err
		}
	}
	return failed
}

// parts are what is yet to be looked at, or all, one after another: what is no
// queue's, and the queues with their bindings, so many together.
func (r *restorer) parts(all bool, together int) (parts []routing.Topology) {
	t := r.declared.Topology()
	queues, bindings := map[string]bool{}, map[string][]routing.Binding{}
	for _, q := range t.Queues {
		queues[q.Name] = true
	}
	for _, b := range t.Bindings {
		if !queues[b.Queue] {
			bindings[""] = append(bindings[""], b)
		} else {
			bindings[b.Queue] = append(bindings[b.Queue], b)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.awaited
	r.awaited = map[string]bool{}
	if all || was[""] {
		r.awaited[""] = true
		parts = append(parts, routing.Topology{Exchanges: t.Exchanges, Bindings: bindings[""]})
	}
	var p routing.Topology
	for i, q := range t.Queues {
		if all || was[q.Name] {
			r.awaited[q.Name] = true
			p.Queues, p.Bindings = append(p.Queues, q), append(p.Bindings, bindings[q.Name]...)
		}
		if n := len(p.Queues); n == together || n > 0 && i == len(t.Queues)-1 {
			parts, p = append(parts, p), routing.Topology{}
		}
	}
	return parts
}

// make makes what is missing of a part. What others have declared differently
// since, or this user may not declare any more, is left as it is.
func (r *restorer) make(p routing.Topology) error {
	err := r.declare(p)
	if err != nil && stays(err) && len(p.Queues) <= 1 {
		err = r.singly(p)
	}
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(p.Queues) == 0 {
		delete(r.awaited, "")
	}
	for _, q := range p.Queues {
		delete(r.awaited, q.Name)
	}
	return nil
}

// declare makes what is missing of t, in a while.
func (r *restorer) declare(t routing.Topology) error {
	ctx, cancel := context.WithTimeout(r.ctx, LeaseTime)
	defer cancel()
	_, err := r.c.declare(ctx, t)
	return err
}

// singly makes one exchange or queue after another, and the bindings in ever smaller
// parts, and leaves out what cannot be made.
func (r *restorer) singly(p routing.Topology) error {
	one := func(what string, t routing.Topology) error {
		err := r.declare(t)
		if err != nil && stays(err) {
			r.c.cfg.Logger.Warn("cannot make anew what was declared", "what", what, "error", err)
			return nil
		}
		return err
	}
	for _, x := range p.Exchanges {
		if err := one("exchange "+x.Name, routing.Topology{Exchanges: []routing.Exchange{x}}); err != nil {
			return err
		}
	}
	for _, q := range p.Queues {
		if err := one("queue "+q.Name, routing.Topology{Queues: []routing.Queue{q}}); err != nil {
			return err
		}
	}
	// There may be very many of them, and few that are in the way.
	var bind func(bs []routing.Binding) error
	bind = func(bs []routing.Binding) error {
		t := routing.Topology{Bindings: bs}
		switch len(bs) {
		case 0:
			return nil
		case 1:
			return one("binding from "+bs[0].Exchange, t)
		}
		err := r.declare(t)
		if err == nil || !stays(err) {
			return err
		}
		half := len(bs) / 2
		if err := bind(bs[:half]); err != nil {
			return err
		}
		return bind(bs[half:])
	}
	return bind(p.Bindings)
}

// release lets routing go on, unless there is news.
func (r *restorer) release() {
	t := &r.c.topo
	t.mu.Lock()
	defer t.mu.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.again && !r.lacks(t.now) {
		r.pending.Store(false)
		signal(r.c.retrier.wake)
	}
}

// see holds routing back where a queue leaves the topology that is about to stand
// again. The caller holds the topology's mutex, and has not shown st to publishers.
func (r *restorer) see(st *state) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lacks(st) {
		r.pending.Store(true)
	}
}

// lacks reports that st lacks a queue that is awaited; the caller holds mu.
func (r *restorer) lacks(st *state) bool {
	for name := range r.awaited {
		if name != "" && st.queues[name] == nil {
			return true
		}
	}
	return false
}

// awaits reports that a queue which is gone may stand again in a moment.
func (r *restorer) awaits(queue string) bool {
	if r.pending.Load() {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.awaited[queue]
}

// remakes reports that this connection is about to make the queue anew.
func (r *restorer) remakes(queue string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.awaited[queue] || r.pending.Load() && r.declared.Restores(queue)
}

// has reports whether the topology names all of what was declared, whether or not
// the broker has it.
func (t *topology) has(want routing.Topology) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, x := range want.Exchanges {
		if _, ok := t.exchange(x.Name); !ok {
			return false
		}
	}
	for _, q := range want.Queues {
		if t.queues[q.Name] == nil {
			return false
		}
	}
	for _, b := range want.Bindings {
		name, _, err := bindingName(b)
		if _, ok := t.bindings[name]; err == nil && !ok {
			return false
		}
	}
	return true
}

// stays reports that another try would have the same answer.
func stays(err error) bool {
	return hopeless(err) || errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrInUse)
}

// close ends it.
func (r *restorer) close() {
	r.mu.Lock()
	r.stop()
	r.mu.Unlock()
	r.work.Wait()
}

// Restores implements driver.Restored.
func (c *conn) Restores(queue string) bool { return c.restorer.declared.Restores(queue) }

var _ driver.Restored = (*conn)(nil)
