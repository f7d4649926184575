package emulate

import (
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
// that none misses a queue which is about to stand again. A goroutine does it,
// which is there only meanwhile.
type restorer struct {
	c        *conn
	declared driver.Declared
	pending  atomic.Bool

	ctx  context.Context // ends before the connection's
	stop context.CancelFunc
	work sync.WaitGroup

	mu      sync.Mutex
	running bool
	again   bool // what runs may have looked too early
}

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
	for failed := 0; r.next(); {
		err := r.restore(r.ctx, r.declared.Topology())
		if err == nil {
			failed = 0
			continue
		}
		if failed == 0 && r.ctx.Err() == nil {
			r.c.cfg.Logger.Warn("what was declared cannot be made anew yet; trying again", "error", err)
		}
		r.mu.Lock()
		r.again = true
		r.mu.Unlock()
		_ = sleep(r.ctx, r.ctx, backoff(failed))
		failed++
	}
}

// next reports that there is something to do; otherwise all is done, and routing
// goes on.
func (r *restorer) next() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.again && r.ctx.Err() == nil {
		r.again = false
		return true
	}
	r.running = false
	r.pending.Store(false)
	signal(r.c.retrier.wake)
	return false
}

// restore makes what is missing of t. What others have declared differently since,
// or this user may not declare any more, is left as it is: the rest is made one by
// one then.
func (r *restorer) restore(ctx context.Context, t routing.Topology) error {
	_, err := r.c.declare(ctx, t)
	if err == nil || !stays(err) {
		return err
	}
	one := func(what string, t routing.Topology) error {
		_, err := r.c.declare(ctx, t)
		if err != nil && stays(err) {
			r.c.cfg.Logger.Warn("cannot make anew what was declared", "what", what, "error", err)
			return nil
		}
		return err
	}
	for _, x := range t.Exchanges {
		if err := one("exchange "+x.Name, routing.Topology{Exchanges: []routing.Exchange{x}}); err != nil {
			return err
		}
	}
	for _, q := range t.Queues {
		if err := one("queue "+q.Name, routing.Topology{Queues: []routing.Queue{q}}); err != nil {
			return err
		}
	}
	for _, b := range t.Bindings {
		if err := one("binding from "+b.Exchange, routing.Topology{Bindings: []routing.Binding{b}}); err != nil {
			return err
		}
	}
	return nil
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
