package mem

import (
	"container/heap"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// queue is a queue's storage.
type queue struct {
	def *emulate.Queue // as it was made

	mu        sync.Mutex
	gone      bool
	seq       uint64
	ready     levels
	delayed   byDue
	timer     *time.Timer // fires when the first of delayed is due
	held      int
	dead      dead
	expiring  bool // a message may have an end
	consumers []*consumer
	turn      int       // the consumer whose turn it is
	used      bool      // it has had a consumer
	since     time.Time // it has been without one and not touched
	spare     []*item
	seen      dedup
	told      bool // that its window is shorter
}

func newQueue(q *emulate.Queue) *queue {
	return &queue{def: q, ready: newLevels(q), expiring: q.TTL > 0, since: time.Now()}
}

// append stores parcels of this queue.
func (q *queue) append(parcels []*emulate.Parcel, log *slog.Logger) {
	refused, gone, tell := q.add(parcels)
	if tell {
		log.Warn("a queue gets so many messages with IDs of their own that they are remembered for less than 20 s", "queue", parcels[0].Queue.Name)
	}
	for _, p := range parcels {
		switch {
		case gone:
			p.Done(emulate.ErrGone)
		case len(p.Publishing.Message.Body) > maxMessageBytes:
			p.Done(fmt.Errorf("%w: %d bytes, the limit is %d", driver.ErrTooLarge, len(p.Publishing.Message.Body), maxMessageBytes))
		case refused[p]:
			p.Done(fmt.Errorf("%w: it is full", driver.ErrRejected))
		default:
			p.Done(nil)
		}
	}
}

// add stores what is not too large, and says what was refused, whether the
// queue is gone, and whether to tell that it remembers IDs for less long.
func (q *queue) add(parcels []*emulate.Parcel) (refused map[*emulate.Parcel]bool, gone, tell bool) {
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return nil, true, false
	}
	for _, p := range parcels {
		m := p.Publishing.Message
		if len(m.Body) > maxMessageBytes {
			continue
		}
		// An ID that was made for this message comes a second time only after
		// an unknown outcome, of which there are none here.
		repeats := m.ID != "" || p.Retry
		if q.refuses(len(m.Body)) && !(repeats && q.seen.has(p.DedupID, now)) {
			if refused == nil {
				refused = map[*emulate.Parcel]bool{}
			}
			refused[p] = true
			continue
		}
		if repeats && !q.seen.add(p.DedupID, now) {
			continue
		}
		it := q.newItem(m)
		it.exchange, it.seq, it.stored, it.attempts = p.Exchange, q.seq, now.UnixNano(), 0
		q.seq++
		it.message.ID = p.Publishing.ID
		q.expiring = q.expiring || m.TTL > 0
		q.ready.push(it)
	}
	q.share()
	q.trim()
	tell = q.seen.short && !q.told
	q.told = q.told || tell
	return refused, false, tell
}

// deliver takes the first ready message.
func (q *queue) deliver() *emulate.Delivery {
	it := q.ready.pop()
	d := handOut(it)
	it.hold = d
	q.held++
	return d
}

func (q *queue) settle(d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.holds(d) {
		return driver.ErrLost
	}
	it := q.release(d)
	if o != driver.Nack {
		q.done(it)
		return nil
	}
	q.again(it, true, delay)
	q.trim()
	q.share()
	return nil
}

func (q *queue) holds(d *emulate.Delivery) bool { return !q.gone && itemOf(d).hold == d }

func (q *queue) release(d *emulate.Delivery) *item {
	it := itemOf(d)
	it.hold = nil
	q.held--
	return it
}

// again puts a message back to its place, now or later.
func (q *queue) again(it *item, counts bool, delay time.Duration) {
	if counts {
		it.attempts++
	}
	if delay <= 0 {
		q.ready.putBack(it)
		return
	}
	x := &delayed{it, time.Now().Add(delay)}
	heap.Push(&q.delayed, x)
	if q.delayed[0] == x {
		q.arm()
	}
}

// arm sets the timer to the first delayed message.
func (q *queue) arm() {
	if len(q.delayed) == 0 {
		return
	}
	wait := time.Until(q.delayed[0].due)
	if q.timer == nil {
		q.timer = time.AfterFunc(wait, q.ripen)
	} else {
		q.timer.Reset(wait)
	}
}

// ripen puts back what is due.
func (q *queue) ripen() {
	q.mu.Lock()
	defer q.mu.Unlock()
	now := time.Now()
	for len(q.delayed) > 0 && !q.delayed[0].due.After(now) {
		q.ready.putBack(heap.Pop(&q.delayed).(*delayed).item)
	}
	q.arm()
	q.trim()
	q.share()
}

func (q *queue) join(c *consumer) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return emulate.ErrGone
	}
	q.consumers = append(q.consumers, c)
	q.used = true
	q.share()
	return nil
}

// leave ends a consumer's part; what it had is given back next, and shared.
func (q *queue) leave(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.consumers {
		if other == c {
			q.consumers = append(q.consumers[:i:i], q.consumers[i+1:]...)
			q.since = time.Now()
			return
		}
	}
}

// giveBack returns what a consumer holds to its place.
func (q *queue) giveBack(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reclaim(c)
	q.trim()
	q.share()
}

// reclaim counts an attempt only for what the application had: what was merely
// prefetched has not been tried.
func (q *queue) reclaim(c *consumer) {
	prefetched, handed := c.in.Drain()
	q.takeBack(prefetched, false)
	q.takeBack(handed, true)
}

// putBack returns what a consumer has merely prefetched.
func (q *queue) putBack(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.takeBack(c.in.Prefetched(), false)
	q.trim()
	q.share()
}

func (q *queue) takeBack(ds []*emulate.Delivery, counts bool) {
	for _, d := range ds {
		if q.holds(d) {
			q.again(q.release(d), counts, 0)
		}
	}
}

// remove makes the storage vanish; what consumers hold is lost with it.
func (q *queue) remove(o emulate.DeleteOptions) error {
	q.mu.Lock()
	if q.gone {
		q.mu.Unlock()
		return nil
	}
	if err := q.keeps(o); err != nil {
		q.mu.Unlock()
		return err
	}
	q.gone = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.ready.clear()
	q.delayed, q.dead = nil, dead{}
	consumers := q.consumers
	q.consumers = nil
	q.mu.Unlock()
	for _, c := range consumers {
		c.in.Fail(driver.ErrNotFound)
	}
	return nil
}

// keeps is the condition that keeps the queue from being removed.
func (q *queue) keeps(o emulate.DeleteOptions) error {
	if (o.IfUnused || o.Idle > 0) && len(q.consumers) > 0 {
		return fmt.Errorf("%w: it has %d subscribers", driver.ErrInUse, len(q.consumers))
	}
	if n := q.waiting(); o.IfEmpty && n > 0 {
		return fmt.Errorf("%w: it has %d messages", driver.ErrInUse, n)
	}
	if idle := time.Since(q.since); idle < o.Idle {
		return fmt.Errorf("%w: it was used %v ago", driver.ErrInUse, idle)
	}
	return nil
}

// waiting is how many messages wait for a consumer, now or later.
func (q *queue) waiting() int { return q.ready.n + len(q.delayed) }

func (q *queue) inspect() (driver.QueueInfo, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return driver.QueueInfo{}, emulate.ErrGone
	}
	return driver.QueueInfo{Ready: q.waiting(), Unsettled: q.held, Consumers: len(q.consumers)}, nil
}

func (q *queue) purge() (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return 0, emulate.ErrGone
	}
	n := q.waiting()
	q.ready.clear()
	q.delayed = nil
	return n, nil
}

func (q *queue) usage() (emulate.Usage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return emulate.Usage{}, emulate.ErrGone
	}
	u := emulate.Usage{Consumers: len(q.consumers), Used: q.used}
	if u.Consumers == 0 {
		u.Idle = time.Since(q.since)
	}
	return u, nil
}

func (q *queue) touch() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return emulate.ErrGone
	}
	q.since = time.Now()
	return nil
}

// restart takes back what is held, forgets transient messages, and begins anew
// the time for which the queue is unused.
func (q *queue) restart() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.consumers {
		q.reclaim(c)
	}
	q.ready.keepDurable()
	q.delayed = slices.DeleteFunc(q.delayed, func(x *delayed) bool { return x.item.message.Transient })
	heap.Init(&q.delayed)
	q.dead.restart()
	q.since = time.Now()
	q.trim()
	q.share()
}
