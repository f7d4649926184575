package emulate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/polymq/polymq/driver"
)

// endings ends what nobody uses any more: exclusive queues whose owner is gone,
// auto-delete queues whose consumers died, queues that have expired. It is the
// leader's.
type endings struct {
	c       *conn
	missing map[string]time.Time // owners without a lease, and since when
	looks   map[string]time.Time // when to look at a queue again, by incarnation
	known   map[string]time.Time // since when the broker has been answering for a queue
}

const (
	// abandonedLook is how often an auto-delete queue is looked at: the
	// consumers that close delete it themselves.
	abandonedLook = 5 * time.Second
	// abandonedTime is how long a queue must have been without consumers while
	// the broker was there: after an outage they need a while to come back.
	abandonedTime = 2 * abandonedLook
	// lookTime bounds the looks of one call, so that many queues do not keep
	// the janitor from its other work.
	lookTime = 200 * time.Millisecond
)

func (e *endings) init(c *conn) {
	e.c = c
	e.missing = map[string]time.Time{}
	e.looks = map[string]time.Time{}
	e.known = map[string]time.Time{}
}

// lifecycle looks after what ends by itself. Only the leader's janitor calls
// it, again after next.
func (c *conn) lifecycle(ctx context.Context) (next time.Duration, err error) {
	e := &c.endings
	st, err := c.refresh(ctx)
	if err != nil {
		clear(e.known)
		return 0, err
	}
	over, err := e.ownerless(ctx, st)
	unused, next, failed := e.survey(ctx, st)
	over = append(over, unused...)
	if len(over) > 0 {
		gone := map[string]bool{}
		for _, q := range over {
			gone[q.Incarnation] = true
		}
		_, removed := c.alter(ctx, nil, func(t *topology) ([]Element, error) {
			return t.removal(func(q *Queue) bool { return gone[q.Incarnation] }), nil
		})
		err = errors.Join(err, removed)
	}
	return max(next, time.Millisecond), errors.Join(err, failed)
}

// survey looks at the queues whose turn it is, and says when the next one's is.
// One that cannot be looked at does not keep the others waiting.
func (e *endings) survey(ctx context.Context, st *state) (over []*Queue, next time.Duration, failed error) {
	next = time.Second
	now := time.Now()
	looks, known := make(map[string]time.Time, len(e.looks)), make(map[string]time.Time, len(e.known))
	for _, q := range st.queues {
		if q.Expires == 0 && !q.AutoDelete {
			continue
		}
		at, ok := e.looks[q.Incarnation]
		since := e.known[q.Incarnation]
		switch {
		case ok && now.Before(at):
		case time.Since(now) > lookTime || ctx.Err() != nil:
			at = now // in the next call
		default:
			if since.IsZero() {
				since = time.Now()
			}
			gone, again, err := e.look(ctx, q, since)
			if gone && err == nil {
				over = append(over, q)
				continue
			}
			if err != nil {
				since, again = time.Time{}, time.Second
				if failed == nil {
					failed = fmt.Errorf("queue %q: %w", q.Name, err)
				}
			}
			at = now.Add(again)
		}
		looks[q.Incarnation] = at
		if !since.IsZero() {
			known[q.Incarnation] = since
		}
		next = min(next, at.Sub(now))
	}
	e.looks, e.known = looks, known
	return over, next, failed
}

// ownerless removes the storages of exclusive queues whose owner has had no
// lease for a while, and returns them.
func (e *endings) ownerless(ctx context.Context, st *state) (over []*Queue, err error) {
	missing := map[string]time.Time{}
	defer func() { e.missing = missing }()
	owned := false
	for _, q := range st.queues {
		owned = owned || q.owner != ""
	}
	if !owned {
		return nil, nil
	}
	leases, restarted, err := e.c.store.Leases(ctx)
	if err != nil || restarted >= 0 && restarted < recordTime {
		return nil, err // who lives has yet to renew
	}
	alive := map[string]bool{e.c.lease.client: true}
	for _, l := range leases {
		alive[l.Client] = true
	}
	now := time.Now()
	for _, q := range st.queues {
		if q.owner == "" || alive[q.owner] {
			continue
		}
		since, ok := e.missing[q.owner]
		if !ok {
			since = now
		}
		missing[q.owner] = since
		if now.Sub(since) < LeaseTime {
			continue
		}
		if err := e.c.store.DeleteQueue(ctx, q, DeleteOptions{}); err != nil {
			return over, err
		}
		over = append(over, q)
	}
	return over, nil
}

// look removes a queue's storage if nobody uses it, or says when that could be.
// A time in which the broker was not there, or this process could not reach it,
// is not held against a queue: it has been answering since known.
func (e *endings) look(ctx context.Context, q *Queue, known time.Time) (gone bool, again time.Duration, err error) {
	u, err := e.c.store.Usage(ctx, q)
	if errors.Is(err, ErrGone) {
		return q.owner == "", time.Second, nil
	}
	if err != nil {
		return false, 0, err
	}
	seen := min(u.Idle, time.Since(known))
	o := DeleteOptions{DeleteOptions: driver.DeleteOptions{IfUnused: true}}
	again = recordTime
	over := false
	if q.AutoDelete {
		again = abandonedLook
		if u.Used && u.Consumers == 0 {
			left := abandonedTime - seen
			over, again = left <= 0, min(again, left)
		}
	}
	if q.Expires > 0 && !over {
		o.Idle = q.Expires
		left := q.Expires
		if u.Consumers == 0 {
			left = max(q.Expires-u.Idle, min(q.Expires, abandonedTime)-seen)
		}
		over, again = left <= 0, min(again, left)
	}
	if !over {
		return false, max(again, time.Millisecond), nil
	}
	err = e.c.store.DeleteQueue(ctx, q, o)
	if errors.Is(err, driver.ErrInUse) {
		return false, time.Second, nil
	}
	return err == nil, again, err
}

// ensureExpiring notes in the topology that messages with a TTL of their own
// come to a queue: it is expiring in the state that c.refresh and
// c.topo.current return afterwards.
func (c *conn) ensureExpiring(ctx context.Context, q *Queue) error {
	_, err := c.alter(ctx, nil, func(t *topology) ([]Element, error) {
		now := t.queues[q.Name]
		if now == nil || now.Incarnation != q.Incarnation || now.expiring {
			return nil, nil
		}
		marked := *now
		marked.expiring = true
		e, err := encodeQueue(&marked)
		return []Element{e}, err
	})
	return err
}

// autoDelete deletes a queue whose last consumer may just have gone. The
// subscriber that closed calls it for a queue with AutoDelete. Where it fails,
// the leader does it.
func (c *conn) autoDelete(ctx context.Context, q *Queue) {
	ctx, cancel := within(ctx, LeaseTime)
	defer cancel()
	var err error
	if c.own.restores(q.Name) {
		err = c.DeleteQueue(ctx, q.Name, driver.DeleteOptions{IfUnused: true})
	} else if err = c.store.DeleteQueue(ctx, q, DeleteOptions{DeleteOptions: driver.DeleteOptions{IfUnused: true}}); err == nil {
		_, err = c.alter(ctx, nil, without(q))
	}
	if err != nil && !errors.Is(err, driver.ErrInUse) {
		c.cfg.Logger.Warn("an auto-delete queue could not be deleted; it is soon", "queue", q.Name, "error", err)
	}
}
