package mem

import (
	"container/heap"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// item is a message in a queue, as it was published.
type item struct {
	message  driver.Message
	exchange string
	seq      uint64    // its place
	attempts int       // deliveries that count
	due      time.Time // delayed until then
	hold     *hold     // who has it
}

// newItem is an item, and the room for a body of n bytes where that is kept in
// the same allocation.
func newItem(n int) (*item, []byte) {
	if n == 0 || n > inline {
		return new(item), nil
	}
	x := new(struct {
		item
		space [inline]byte
	})
	return &x.item, x.space[:]
}

// hold is one delivery of an item. A later one is another hold, so that a
// settlement that comes late finds nothing to settle.
type hold struct {
	emulate.Delivery
	item *item
}

func newHold(n int) (*hold, []byte) {
	if n == 0 || n > inline {
		return new(hold), nil
	}
	x := new(struct {
		hold
		space [inline]byte
	})
	return &x.hold, x.space[:]
}

// queue is a queue's storage. Messages that nobody has touched are in fresh,
// in their order; those that came back are in back, all before fresh.
type queue struct {
	incarnation string
	transient   bool

	mu        sync.Mutex
	gone      bool
	seq       uint64
	fresh     ring
	back      bySeq
	delayed   byDue
	timer     *time.Timer // fires when the first of delayed is due
	held      int
	consumers []*consumer
	turn      int // the consumer whose turn it is
	seen      dedup
	told      bool // that its window is shorter
}

func newQueue(q *emulate.Queue) *queue {
	return &queue{incarnation: q.Incarnation, transient: q.Transient}
}

// append stores parcels of this queue.
func (q *queue) append(parcels []*emulate.Parcel, log *slog.Logger) {
	var now time.Time
	q.mu.Lock()
	gone := q.gone
	for _, p := range parcels {
		m := p.Publishing.Message
		if gone || len(m.Body) > maxMessageBytes {
			continue
		}
		// An ID that was made for this message comes a second time only after
		// an unknown outcome, of which there are none here.
		if m.ID != "" || p.Retry {
			if now.IsZero() {
				now = time.Now()
			}
			if !q.seen.add(p.DedupID, now) {
				continue
			}
		}
		it, space := newItem(len(m.Body))
		it.exchange, it.seq = p.Exchange, q.seq
		q.seq++
		copyMessage(&it.message, m, space)
		it.message.ID = p.Publishing.ID
		q.fresh.push(it)
	}
	q.share()
	tell := q.seen.short && !q.told
	q.told = q.told || tell
	q.mu.Unlock()
	if tell {
		log.Warn("a queue gets so many messages with IDs of their own that they are remembered for less than 20 s", "queue", parcels[0].Queue.Name)
	}
	for _, p := range parcels {
		switch {
		case gone:
			p.Done(emulate.ErrGone)
		case len(p.Publishing.Message.Body) > maxMessageBytes:
			p.Done(fmt.Errorf("%w: %d bytes, the limit is %d", driver.ErrTooLarge, len(p.Publishing.Message.Body), maxMessageBytes))
		default:
			p.Done(nil)
		}
	}
}

func (q *queue) distribute() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.share()
}

// share gives ready messages to the consumers that have room.
func (q *queue) share() {
	for q.deal(); q.rest(); {
		q.deal()
	}
}

// rest tells the consumers whether there is anything to wake up for, and
// reports whether one that should has room by now.
func (q *queue) rest() (room bool) {
	idle := q.ready() == 0
	for _, c := range q.consumers {
		if c.idle != idle {
			c.idle = idle
			room = c.in.Idle(idle) > 0 && !idle || room
		}
	}
	return room
}

// deal gives each its share, in turn.
func (q *queue) deal() {
	if q.ready() == 0 || len(q.consumers) == 0 {
		return
	}
	if len(q.consumers) == 1 {
		c := q.consumers[0]
		n := min(c.in.Room(), q.ready())
		for range n {
			c.share = append(c.share, q.deliver())
		}
		q.put(c)
		return
	}
	rooms := make([]int, len(q.consumers))
	open := 0
	for i, c := range q.consumers {
		if rooms[i] = c.in.Room(); rooms[i] > 0 {
			open++
		}
	}
	for open > 0 && q.ready() > 0 {
		i := q.turn % len(q.consumers)
		q.turn = i + 1
		if rooms[i] == 0 {
			continue
		}
		if rooms[i]--; rooms[i] == 0 {
			open--
		}
		q.consumers[i].share = append(q.consumers[i].share, q.deliver())
	}
	for _, c := range q.consumers {
		q.put(c)
	}
}

func (q *queue) put(c *consumer) {
	if len(c.share) > 0 {
		q.takeBack(c.in.Put(c.share...), false)
		clear(c.share)
		c.share = c.share[:0]
	}
}

func (q *queue) ready() int { return len(q.back) + q.fresh.n }

// deliver takes the first ready message.
func (q *queue) deliver() *emulate.Delivery {
	var it *item
	if len(q.back) > 0 {
		it = heap.Pop(&q.back).(*item)
	} else {
		it = q.fresh.pop()
	}
	h, space := newHold(len(it.message.Body))
	h.item, it.hold = it, h
	q.held++
	copyMessage(&h.Message, &it.message, space)
	h.Exchange, h.Attempt, h.Redelivered = it.exchange, it.attempts+1, it.attempts > 0
	h.Seq, h.Ref = it.seq, h
	return &h.Delivery
}

func (q *queue) settle(h *hold, o driver.Outcome, delay time.Duration) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone || h.item.hold != h {
		return driver.ErrLost
	}
	q.release(h)
	if o == driver.Nack {
		q.again(h.item, true, delay)
		q.share()
	}
	return nil
}

func (q *queue) release(h *hold) {
	h.item.hold = nil
	q.held--
}

// again puts a message back to its place, now or later.
func (q *queue) again(it *item, counts bool, delay time.Duration) {
	if counts {
		it.attempts++
	}
	if delay <= 0 {
		heap.Push(&q.back, it)
		return
	}
	it.due = time.Now().Add(delay)
	heap.Push(&q.delayed, it)
	if q.delayed[0] == it {
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
		heap.Push(&q.back, heap.Pop(&q.delayed))
	}
	q.arm()
	q.share()
}

func (q *queue) join(c *consumer) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return emulate.ErrGone
	}
	q.consumers = append(q.consumers, c)
	q.share()
	return nil
}

func (q *queue) leave(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for i, other := range q.consumers {
		if other == c {
			q.consumers = append(q.consumers[:i:i], q.consumers[i+1:]...)
			return
		}
	}
}

// giveBack returns what a consumer holds to its place.
func (q *queue) giveBack(c *consumer) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.reclaim(c)
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
	q.share()
}

func (q *queue) takeBack(ds []*emulate.Delivery, counts bool) {
	for _, d := range ds {
		if h := d.Ref.(*hold); !q.gone && h.item.hold == h {
			q.release(h)
			q.again(h.item, counts, 0)
		}
	}
}

// remove makes the storage vanish; what consumers hold is lost with it.
func (q *queue) remove(o driver.DeleteOptions) error {
	q.mu.Lock()
	if q.gone {
		q.mu.Unlock()
		return nil
	}
	if o.IfUnused && len(q.consumers) > 0 {
		q.mu.Unlock()
		return fmt.Errorf("%w: it has %d subscribers", driver.ErrInUse, len(q.consumers))
	}
	if n := q.ready() + len(q.delayed); o.IfEmpty && n > 0 {
		q.mu.Unlock()
		return fmt.Errorf("%w: it has %d messages", driver.ErrInUse, n)
	}
	q.gone = true
	if q.timer != nil {
		q.timer.Stop()
	}
	q.fresh, q.back, q.delayed = ring{}, nil, nil
	consumers := q.consumers
	q.consumers = nil
	q.mu.Unlock()
	for _, c := range consumers {
		c.in.Fail(driver.ErrNotFound)
	}
	return nil
}

func (q *queue) inspect() (driver.QueueInfo, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return driver.QueueInfo{}, emulate.ErrGone
	}
	return driver.QueueInfo{Ready: q.ready() + len(q.delayed), Unsettled: q.held, Consumers: len(q.consumers)}, nil
}

func (q *queue) purge() (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.gone {
		return 0, emulate.ErrGone
	}
	n := q.ready() + len(q.delayed)
	q.fresh, q.back, q.delayed = ring{}, nil, nil
	return n, nil
}

// restart takes back what is held and forgets transient messages.
func (q *queue) restart() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, c := range q.consumers {
		q.reclaim(c)
	}
	var fresh ring
	for q.fresh.n > 0 {
		if it := q.fresh.pop(); !it.message.Transient {
			fresh.push(it)
		}
	}
	q.fresh = fresh
	q.back = durable(q.back)
	heap.Init(&q.back)
	q.delayed = durable(q.delayed)
	heap.Init(&q.delayed)
	q.share()
}

func durable[S ~[]*item](items S) S {
	var kept S
	for _, it := range items {
		if !it.message.Transient {
			kept = append(kept, it)
		}
	}
	return kept
}
