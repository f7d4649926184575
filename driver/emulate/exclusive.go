package emulate

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// exclusives sees to the queues that belong to this connection: their element
// names its client, whose lease tells that it lives. When the connection was
// lost and is back, or for so long that others may have taken it for dead, they
// are made anew, empty, with the bindings that they had. A goroutine does that,
// which is there only meanwhile.
type exclusives struct {
	c    *conn
	ctx  context.Context // ends before the connection's
	stop context.CancelFunc
	work sync.WaitGroup
	busy chan struct{} // cap 1: held by the one who makes or deletes any

	mu      sync.Mutex
	ended   bool
	running bool
	gone    map[string]*lostQueue // by name
}

// lostQueue is one that is to be made anew.
type lostQueue struct {
	was      *Queue
	bindings []routing.Binding
	made     *Queue
	created  bool // made has its storage
	taken    bool // another queue has the name
	losses   int  // so often; the mutex guards it
}

func (x *exclusives) init(c *conn) {
	x.c = c
	x.ctx, x.stop = context.WithCancel(context.Background())
	x.busy = make(chan struct{}, 1)
	x.gone = map[string]*lostQueue{}
}

// mine reports that the queue belongs to this connection.
func (c *conn) mine(q *Queue) bool { return q.owner != "" && q.owner == c.lease.client }

// locked refuses what only the owner of an exclusive queue may do.
func (c *conn) locked(q *Queue) error {
	if q == nil || q.owner == "" || c.mine(q) {
		return nil
	}
	return fmt.Errorf("queue %q: %w: it is exclusive to another connection", q.Name, driver.ErrInUse)
}

// lost has all queues of this connection made anew that the copy of the
// topology names, whose mutex the caller holds.
func (x *exclusives) lost(t *topology) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ended {
		return
	}
	for name, q := range t.queues {
		if !x.c.mine(q) {
			continue
		}
		l := x.gone[name]
		if l == nil {
			l = &lostQueue{was: q}
			for _, b := range t.bindings {
				if b.Queue == name {
					l.bindings = append(l.bindings, b)
				}
			}
			x.gone[name] = l
		}
		l.losses++
	}
	if len(x.gone) > 0 && !x.running {
		x.running = true
		x.work.Go(x.run)
	}
}

// loseAll is lost for whoever does not hold the topology's mutex.
func (x *exclusives) loseAll() {
	t := &x.c.topo
	t.mu.Lock()
	defer t.mu.Unlock()
	x.lost(t)
}

func (x *exclusives) run() {
	for failed := 0; ; {
		done, err := x.round()
		if done {
			return
		}
		if err == nil {
			failed = 0
			continue
		}
		if failed == 0 && x.ctx.Err() == nil {
			x.c.cfg.Logger.Warn("exclusive queues could not be made anew; trying again", "error", err)
		}
		_ = sleep(x.ctx, x.ctx, backoff(failed))
		failed++
	}
}

// round makes anew what is to be made anew now, and reports whether the
// goroutine is done.
func (x *exclusives) round() (done bool, err error) {
	if x.hold(x.ctx) == nil {
		defer x.release()
	}
	x.mu.Lock()
	x.running = len(x.gone) > 0 && !x.ended
	done = !x.running
	x.mu.Unlock()
	if done {
		return true, nil
	}
	// From now on nobody takes the owner for dead: what is lost until then is in
	// this round.
	if err := x.c.lease.renew(x.ctx); err != nil {
		return false, err
	}
	x.mu.Lock()
	todo := make(map[*lostQueue]int, len(x.gone))
	for _, l := range x.gone {
		todo[l] = l.losses
	}
	x.mu.Unlock()
	return false, x.restore(x.ctx, todo)
}

// hold keeps others from making or deleting until release.
func (x *exclusives) hold(ctx context.Context) error {
	select {
	case x.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *exclusives) release() { <-x.busy }

// restores reports that a queue is to be made anew.
func (x *exclusives) restores(name string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.gone[name] != nil
}

// restore makes the lost queues anew that nobody has taken or deleted.
func (x *exclusives) restore(ctx context.Context, todo map[*lostQueue]int) error {
	_, err := x.c.alter(ctx,
		func(st *state) error {
			for l := range todo {
				if x.open(l, st.queues[l.was.Name]) {
					if err := x.make(ctx, l); err != nil {
						return err
					}
				}
			}
			return nil
		},
		func(t *topology) ([]Element, error) { return x.plan(t, todo) })
	if err != nil {
		return err
	}
	// Only now do the subscribers hear of it: what they look for then is there.
	for l, losses := range todo {
		if err := x.c.store.DeleteQueue(ctx, l.was, DeleteOptions{}); err != nil {
			return err
		}
		if l.taken && l.made != nil {
			if err := x.c.store.DeleteQueue(ctx, l.made, DeleteOptions{}); err != nil {
				return err
			}
			l.made, l.created = nil, false
		}
		x.settle(l, losses)
	}
	return nil
}

// open reports that the name is free for the lost queue, or has it already.
func (x *exclusives) open(l *lostQueue, now *Queue) bool {
	if now == nil {
		return true
	}
	return now.Incarnation == l.was.Incarnation || l.made != nil && now.Incarnation == l.made.Incarnation
}

func (x *exclusives) make(ctx context.Context, l *lostQueue) error {
	if l.made == nil {
		l.made = &Queue{Queue: l.was.Queue, Incarnation: newIncarnation(), owner: l.was.owner}
		x.c.store.Attach(l.made)
	}
	if l.created {
		return nil
	}
	err := x.c.store.CreateQueue(ctx, l.made)
	l.created = err == nil
	return err
}

func (x *exclusives) plan(t *topology, todo map[*lostQueue]int) ([]Element, error) {
	var queues, bindings []Element
	for l := range todo {
		now := t.queues[l.was.Name]
		if l.taken = !x.open(l, now); l.taken {
			if !x.c.mine(now) {
				x.c.cfg.Logger.Warn("an exclusive queue was not made anew: its name is taken", "queue", l.was.Name)
			}
			continue
		}
		if !l.created {
			return nil, errAgain
		}
		if now == nil || now.Incarnation != l.made.Incarnation {
			e, err := encodeQueue(l.made)
			if err != nil {
				return nil, err
			}
			queues = append(queues, e)
		}
		for _, b := range l.bindings {
			e, err := encodeBinding(b)
			if err != nil {
				return nil, err
			}
			if _, there := t.bindings[e.Name]; there {
				continue
			}
			if _, there := t.exchange(b.Exchange); !there {
				x.c.cfg.Logger.Warn("an exclusive queue came back without a binding: its exchange is gone", "queue", l.was.Name, "exchange", b.Exchange)
				continue
			}
			bindings = append(bindings, e)
		}
	}
	return append(queues, bindings...), nil
}

// settle ends what concerns a lost queue, unless it was lost again meanwhile.
func (x *exclusives) settle(l *lostQueue, losses int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case l.losses == losses:
		delete(x.gone, l.was.Name)
	case l.made != nil:
		l.was, l.made, l.created = l.made, nil, false
	}
}

// forget has a queue not made anew that its owner deletes, who holds busy.
func (x *exclusives) forget(ctx context.Context, name string) {
	x.mu.Lock()
	l := x.gone[name]
	delete(x.gone, name)
	x.mu.Unlock()
	if l != nil && l.made != nil {
		x.c.discard(ctx, l.made)
	}
}

// end deletes all that belongs to this connection. Where that fails, others do
// it when they see that the lease has ended.
func (x *exclusives) end(ctx context.Context) {
	x.mu.Lock()
	x.ended = true
	x.mu.Unlock()
	x.stop()
	x.work.Wait()
	ctx, cancel := within(ctx, LeaseTime)
	defer cancel()
	x.mu.Lock()
	gone := slices.Collect(maps.Values(x.gone)) // a deletion may still be under way
	x.mu.Unlock()
	for _, l := range gone {
		x.c.discard(ctx, l.was)
		if l.made != nil {
			x.c.discard(ctx, l.made)
		}
	}
	var mine []*Queue
	for _, q := range x.c.topo.current().queues {
		if x.c.mine(q) {
			mine = append(mine, q)
		}
	}
	if len(mine)+len(gone) == 0 {
		return
	}
	for _, q := range mine {
		x.c.discard(ctx, q)
	}
	_, err := x.c.alter(ctx, nil, func(t *topology) ([]Element, error) {
		return t.removal(func(q *Queue) bool { return x.c.mine(q) }), nil
	})
	if err != nil {
		x.c.cfg.Logger.Warn("exclusive queues could not be deleted; another connection will", "error", err)
	}
}

// discard removes a storage that no element names, or will in a moment.
func (c *conn) discard(ctx context.Context, q *Queue) {
	if err := c.store.DeleteQueue(ctx, q, DeleteOptions{}); err != nil {
		c.cfg.Logger.Warn("a queue's storage could not be removed", "queue", q.Name, "storage", q.Incarnation, "error", err)
	}
}

// recordTime is how long the record of a lease is there for sure after the
// last renewal, so that others know that the owner of a queue lives.
const recordTime = 9 * LeaseTime

// lapsed reports, once, that others may have taken this connection for dead since
// it renewed last.
func (l *lease) lapsed(now time.Time) bool {
	sent := l.view.Load().sent
	if sent.IsZero() || now.Sub(sent) <= recordTime && now.UnixNano()-sent.UnixNano() <= int64(recordTime) {
		return false
	}
	return l.lapse.Swap(sent.UnixNano()) != sent.UnixNano()
}
