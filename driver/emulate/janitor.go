package emulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// janitor looks after queues that change by themselves: it moves what they give
// up and ends what nobody uses. Of all connections to a namespace one leads,
// and its janitor works. It is one goroutine, from when the topology first has
// such a queue.
type janitor struct {
	c     *conn
	moves mover
	kick  chan struct{} // cap 1: the topology changed, or there is a hint
	ctx   context.Context
	stop  context.CancelFunc
	done  chan struct{}
	leads atomic.Bool

	mu      sync.Mutex
	started bool
	ended   bool
	changed bool                 // the queues
	hints   map[string]time.Time // by incarnation: when there is something to sweep

	// The goroutine's own.
	rounds   map[string]*round // by incarnation
	busy     bool              // there is a queue to look after
	until    time.Time         // the end of the term
	renew    time.Time         // the next try to lead
	failed   int               // in a row, of calls for the lease or the lead
	life     time.Time         // the next lifecycle
	rest     time.Time         // no sweeps before
	dropping []*round          // where something was moved and is to be dropped
	unable   int               // in a row, to drop
	redrop   time.Time         // the next try
}

const (
	leadTerm  = 5 * time.Second
	leadRenew = 1500 * time.Millisecond
)

func (j *janitor) init(c *conn) {
	j.c = c
	j.kick = make(chan struct{}, 1)
	j.done = make(chan struct{})
	j.hints = map[string]time.Time{}
	j.rounds = map[string]*round{}
	j.ctx, j.stop = context.WithCancel(context.Background())
	j.moves.init(c, j.ctx, j)
	j.moves.left = j.left
}

// tended reports whether a queue is to be looked after.
func (q *Queue) tended() bool {
	return q.swept() || q.Expires > 0 || q.AutoDelete || q.Exclusive || q.Name == delayedQueue
}

// swept reports whether a queue gives up messages by itself.
func (q *Queue) swept() bool { return q.TTL > 0 || q.expiring || q.pushesOut() }

// pushesOut reports whether a message can push out others that the dead-letter
// exchange gets.
func (q *Queue) pushesOut() bool {
	return (q.MaxLength > 0 || q.MaxBytes > 0) && q.Overflow != routing.RejectPublish && q.DeadLetterExchange != ""
}

// see hears that the queues of the topology changed.
func (j *janitor) see(st *state) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.changed = true
	if j.started {
		signal(j.kick)
		return
	}
	for _, q := range st.queues {
		if q.tended() && !j.ended {
			j.started = true
			go j.run()
			return
		}
	}
}

// hint says that a queue has something to sweep, now or after a time.
func (j *janitor) hint(q *Queue, after time.Duration) {
	if !j.leads.Load() {
		return
	}
	at := time.Now().Add(after)
	j.mu.Lock()
	was, there := j.hints[q.Incarnation]
	sooner := !there || at.Before(was)
	if sooner {
		j.hints[q.Incarnation] = at
	}
	j.mu.Unlock()
	if sooner {
		signal(j.kick)
	}
}

// run is the janitor goroutine.
func (j *janitor) run() {
	defer close(j.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		timer.Reset(j.step())
		select {
		case <-j.ctx.Done():
			j.dropLast()
			j.resign()
			return
		case <-j.kick:
		case <-j.moves.wake:
		case <-timer.C:
		}
	}
}

// step does what there is to do and says how long until there is more.
func (j *janitor) step() time.Duration {
	wait := j.moves.step()
	wait = min(wait, j.dropDue())
	j.mu.Lock()
	ended := j.ended
	j.mu.Unlock()
	if ended {
		return wait
	}
	j.survey()
	if !j.busy {
		return wait
	}
	wait = min(wait, j.lead())
	if !j.leads.Load() {
		return wait
	}
	wait = min(wait, j.sweep())
	if now := time.Now(); !now.Before(j.life) {
		ctx, cancel := j.call()
		next, err := j.c.lifecycle(ctx)
		cancel()
		if errors.Is(err, driver.ErrPermission) {
			return min(wait, j.yield(err))
		}
		if err != nil && j.ctx.Err() == nil {
			j.c.cfg.Logger.Warn("queues that end by themselves could not be looked after; trying again", "error", err)
			next = time.Second
		}
		j.life = now.Add(next)
	}
	return min(wait, time.Until(j.life))
}

func (j *janitor) call() (context.Context, context.CancelFunc) {
	return context.WithTimeout(j.ctx, LeaseTime)
}

// lead takes or keeps the lead, under the lease, without which the topology
// would grow old.
func (j *janitor) lead() time.Duration {
	now := time.Now()
	if wait := j.renew.Sub(now); wait > 0 {
		if !now.Before(j.until) {
			j.leads.Store(false)
		}
		return wait
	}
	ctx, cancel := j.call()
	defer cancel()
	leads := false
	err := j.c.lease.start(ctx)
	if err == nil {
		leads, err = j.c.store.Lead(ctx, j.c.lease.client, leadTerm)
	}
	j.renew = now.Add(leadRenew)
	switch {
	case err == nil:
		j.failed = 0
		if leads {
			j.until = now.Add(leadTerm - leadTerm/10)
			if !j.leads.Load() {
				j.c.endings.init(j.c) // nobody knows what was while others led
			}
		}
		j.leads.Store(leads)
	default:
		if j.failed == 0 && j.ctx.Err() == nil {
			j.c.cfg.Logger.Warn("who looks after the queues could not be settled; trying again", "error", err)
		}
		j.renew = now.Add(backoff(j.failed))
		j.failed++
		j.leads.Store(now.Before(j.until))
	}
	return time.Until(j.renew)
}

// yieldTime is how long one that may not end queues leads before it yields again.
const yieldTime = time.Minute

// yield lets another lead, who may be allowed to end queues. Where nobody does,
// this connection leads again: it can sweep.
func (j *janitor) yield(err error) time.Duration {
	j.c.cfg.Logger.Warn("queues that end by themselves stay until somebody is connected who may delete them", "error", err)
	j.resign()
	now := time.Now()
	j.life, j.renew = now.Add(yieldTime), now.Add(leadTerm)
	return leadTerm
}

// resign lets another lead at once.
func (j *janitor) resign() {
	if !j.leads.Swap(false) {
		return
	}
	ctx, cancel := within(j.ctx, endTime)
	defer cancel()
	if _, err := j.c.store.Lead(ctx, j.c.lease.client, 0); err != nil {
		j.c.cfg.Logger.Warn("the lead could not be given up; it runs out by itself", "error", err)
	}
}

// close lets what is on its way arrive, then ends the lead.
func (j *janitor) close(ctx context.Context) {
	j.mu.Lock()
	started := j.started
	j.ended = true
	j.mu.Unlock()
	if started {
		j.moves.drain(ctx)
	}
	j.stop()
	if started {
		<-j.done
	}
	j.moves.end()
}

// holds: while it leads nobody else sweeps, so that what it moves stays its own
// however long a target refuses it; whoever moved it anew would not know which
// targets have it.
func (j *janitor) holds(v *move) bool {
	return time.Now().Before(v.d.until) || j.leads.Load() && j.rounds[v.from.Incarnation] != nil
}

// moved has what Sweep returned dropped. What could not be moved comes again
// when its hold is over.
func (j *janitor) moved(v *move, o driver.Outcome, _ time.Duration) {
	r := j.rounds[v.from.Incarnation]
	if r == nil || o != driver.Ack {
		return
	}
	if len(r.dropped) == 0 {
		j.dropping = append(j.dropping, r)
	}
	r.dropped = append(r.dropped, v.d)
}

// left makes room for more of the queue.
func (j *janitor) left(v *move) {
	if r := j.rounds[v.from.Incarnation]; r != nil {
		r.left(v)
	}
}

// drop removes what was moved. What it cannot remove stays for another time: when
// its hold is over it would be moved again.
func (j *janitor) drop(ctx context.Context) (err error) {
	j.dropping = slices.DeleteFunc(j.dropping, func(r *round) bool {
		if e := j.c.store.Drop(ctx, r.q, r.dropped); e != nil && !errors.Is(e, ErrGone) {
			err = fmt.Errorf("queue %q: %w", r.q.Name, e)
			return false
		}
		r.removed()
		return true
	})
	return err
}

// dropDue is drop when its time has come, and says how long until the next try.
func (j *janitor) dropDue() time.Duration {
	if now := time.Now(); len(j.dropping) > 0 && !now.Before(j.redrop) {
		ctx, cancel := j.call()
		err := j.drop(ctx)
		cancel()
		if err == nil {
			j.unable = 0
			return maxWait
		}
		if j.unable == 0 && j.ctx.Err() == nil {
			j.c.cfg.Logger.Warn("dead-lettered messages could not be removed; trying again", "error", err)
		}
		j.redrop = now.Add(backoff(j.unable))
		j.unable++
	}
	if len(j.dropping) > 0 {
		return time.Until(j.redrop)
	}
	return maxWait
}

// dropLast removes at the end what the end cut short.
func (j *janitor) dropLast() {
	if len(j.dropping) == 0 {
		return
	}
	ctx, cancel := within(j.ctx, endTime)
	defer cancel()
	if err := j.drop(ctx); err != nil {
		j.c.cfg.Logger.Warn("dead-lettered messages could not be removed; they come again", "error", err)
	}
}
