package redis

import (
	"context"
	"fmt"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	// laneCount is how many batches can be under way to a server at once. A queue
	// always has the same lane, which keeps its messages in order.
	laneCount = 2
	maxLanes  = 32
	// maxBatch and maxBatchBytes bound a batch.
	maxBatch      = 512
	maxBatchBytes = 1 << 20
	// maxFields is how many fields beside the body Lua can take.
	maxFields = 2999
)

// queue is what Attach keeps of a queue.
type queue struct {
	key  string
	lane int
	fns  *functions
}

// hasRules reports whether the queue is one of those whose every step goes by
// rules; see library/rules.lua.
func hasRules(q *emulate.Queue) bool {
	return q.MaxPriority > 0 || q.MaxLength > 0 || q.MaxBytes > 0 || q.SingleActiveConsumer
}

func (s *store) Attach(q *emulate.Queue) {
	h := &queue{key: s.cfg.prefix + ":" + q.Incarnation + "}", fns: plainFunctions}
	if hasRules(q) {
		h.fns = rulesFunctions
	}
	for _, c := range []byte(q.Incarnation) {
		h.lane += int(c)
	}
	h.lane = (h.lane%laneCount + laneCount*s.servers.shard(h.key)) % maxLanes
	q.Handle = h
}

func (s *store) Append(ctx context.Context, parcels []*emulate.Parcel, wait bool) {
	if len(parcels) == 1 {
		q := parcels[0].Queue.Handle.(*queue)
		s.lanes[q.lane].append(ctx, q.lane, parcels, wait)
		return
	}
	var all [maxLanes]int
	per := all[:len(s.lanes)]
	for _, p := range parcels {
		per[p.Queue.Handle.(*queue).lane]++
	}
	last := 0
	for i, n := range per {
		if n > 0 {
			last = i
		}
	}
	for i, n := range per {
		if n > 0 {
			// All but one lane's batches are left to their goroutines, so that
			// they are under way together.
			s.lanes[i].append(ctx, i, parcels, wait && i == last)
		}
	}
}

// append queues those of the parcels that are this lane's.
func (l *lane) append(ctx context.Context, self int, parcels []*emulate.Parcel, wait bool) {
	l.mu.Lock()
	if l.s.closed.Load() {
		l.mu.Unlock()
		for _, p := range parcels {
			if p.Queue.Handle.(*queue).lane == self {
				p.Done(unconfirmed(driver.ErrClosed))
			}
		}
		return
	}
	var many []*item
	for _, p := range parcels {
		if q := p.Queue.Handle.(*queue); q.lane == self {
			it := newItem(p, q)
			if len(it.fields) > maxFields {
				many = append(many, it)
				continue
			}
			l.queue = append(l.queue, it)
			l.size += len(it.words)
		}
	}
	lead, kick := l.begin(wait && ctx.Err() == nil)
	l.mu.Unlock()
	for _, it := range many {
		it.parcel.Done(fmt.Errorf("%w: %d headers and properties: Redis takes %d", driver.ErrTooLarge, len(it.fields), maxFields))
		it.free()
	}
	switch {
	case lead && ctx.Done() == nil:
		l.lead()
	case lead:
		stop := context.AfterFunc(ctx, l.cut)
		l.lead()
		stop()
	case kick:
		l.pass(nil)
	}
}
