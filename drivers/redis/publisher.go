package redis

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"unsafe"

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

// item is a parcel in the form in which it is sent. It is a copy: a caller that
// has given up may change its message.
type item struct {
	parcel *emulate.Parcel
	queue  *queue
	dedup  string
	fields []emulate.Field
	count  string // of the arguments that fields and body are
	body   []byte
	text   string // body
	failed error
}

var items = sync.Pool{New: func() any { return new(item) }}

var bodyField = "body"

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
		}
	}
	lead := !l.busy
	l.busy = true
	l.mu.Unlock()
	for _, it := range many {
		it.parcel.Done(fmt.Errorf("%w: %d headers and properties: Redis takes %d", driver.ErrTooLarge, len(it.fields), maxFields))
		it.free()
	}
	switch {
	case lead && wait && ctx.Err() == nil:
		if ctx.Done() == nil {
			l.lead()
			return
		}
		stop := context.AfterFunc(ctx, l.cut)
		l.lead()
		stop()
	case lead:
		l.pass()
	}
}

func newItem(p *emulate.Parcel, q *queue) *item {
	it := items.Get().(*item)
	m := p.Publishing.Message
	it.parcel, it.queue, it.dedup, it.failed = p, q, "", nil
	if m.ID != "" || p.Retry || p.DedupID != p.Publishing.ID {
		// Somebody else may send this ID again: the lane's numbers do not tell.
		it.dedup = p.DedupID
	}
	it.fields = emulate.AppendFields(it.fields[:0], m, p.Publishing.ID, p.Exchange)
	it.count = strconv.Itoa(2*len(it.fields) + 2)
	it.body = append(it.body[:0], m.Body...)
	it.text = unsafe.String(unsafe.SliceData(it.body), len(it.body))
	return it
}

func (it *item) free() {
	it.parcel, it.queue, it.failed, it.text = nil, nil, nil, ""
	clear(it.fields)
	if cap(it.body) <= 64<<10 {
		items.Put(it)
	}
}
