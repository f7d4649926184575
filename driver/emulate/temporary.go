package emulate

import (
	"context"
	"errors"
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
}

// abandonedLook is how often an auto-delete queue is looked at: the consumers
// that close delete it themselves.
const abandonedLook = 5 * time.Second

func (e *endings) init(c *conn) {
	e.c = c
	e.missing = map[string]time.Time{}
	e.looks = map[string]time.Time{}
}

// lifecycle looks after what ends by itself. Only the leader's janitor calls
// it, again after next.
func (c *conn) lifecycle(ctx context.Context) (next time.Duration, err error) {
	st, err := c.refresh(ctx)
	if err != nil {
		return 0, err
	}
	e := &c.endings
	over, err := e.ownerless(ctx, st)
	if err != nil {
		return 0, err
	}
	next = time.Second
	now := time.Now()
	looks := make(map[string]time.Time, len(e.looks))
	for _, q := range st.queues {
		if q.Expires == 0 && !q.AutoDelete {
			continue
		}
		at, ok := e.looks[q.Incarnation]
		if !ok || !now.Before(at) {
			gone, again, err := e.look(ctx, q)
			if err != nil {
				return 0, err
			}
			if gone {
				over = append(over, q)
				continue
			}
			at = now.Add(again)
		}
		looks[q.Incarnation] = at
		next = min(next, at.Sub(now))
	}
	e.looks = looks
	if len(over) > 0 {
		gone := map[string]bool{}
		for _, q := range over {
			gone[q.Incarnation] = true
		}
		_, err = c.alter(ctx, nil, func(t *topology) ([]Element, error) {
			return t.removal(func(q *Queue) bool { return gone[q.Incarnation] }), nil
		})
	}
	return max(next, time.Millisecond), err
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
func (e *endings) look(ctx context.Context, q *Queue) (gone bool, again time.Duration, err error) {
	u, err := e.c.store.Usage(ctx, q)
	if errors.Is(err, ErrGone) {
		return q.owner == "", time.Second, nil
	}
	if err != nil {
		return false, 0, err
	}
	o := DeleteOptions{DeleteOptions: driver.DeleteOptions{IfUnused: true}}
	again = recordTime
	over := false
	if q.AutoDelete {
		again = abandonedLook
		over = u.Used && u.Consumers == 0
	}
	if q.Expires > 0 && !over {
		o.Idle = q.Expires
		over = u.Consumers == 0 && u.Idle >= q.Expires
		again = min(again, max(q.Expires-u.Idle, time.Millisecond))
	}
	if !over {
		return false, again, nil
	}
	err = e.c.store.DeleteQueue(ctx, q, o)
	if errors.Is(err, driver.ErrInUse) {
		return false, again, nil
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
