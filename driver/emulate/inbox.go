package emulate

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// Inbox is where a store's consumer puts messages and a subscriber takes them.
// It holds at most its prefetch of messages that are not settled, not counting
// those that are expired or wait for a queue that takes their dead letter. Safe
// for concurrent use.
type Inbox struct {
	q        *Queue
	prefetch int
	lease    time.Duration    // 0: holds do not end by themselves
	now      func() time.Time // by the broker's clock
	more     chan struct{}    // cap 1: there is room worth a fetch
	ready    chan struct{}    // cap 1: something to take, or the end
	expired  chan struct{}    // cap 1: something was put that is expired

	mu         sync.Mutex
	queue      []*Delivery // ring of cap prefetch: put, not yet taken
	head       int
	n          int
	held       int // put and not yet released, the queued ones included
	returning  int // released, and not yet back in the queue: no room for others
	aside      int // of held, not counted in the prefetch
	asideBytes int
	list       Delivery    // sentinel of the ring of held deliveries, oldest first
	gone       []*Delivery // expired ones that takeExpired has not returned
	idle       bool        // the store has nothing to put
	err        error       // the end
	ended      bool        // drained after the end
}

func newInbox(q *Queue, prefetch int, lease time.Duration) *Inbox {
	in := &Inbox{
		q:        q,
		prefetch: prefetch,
		lease:    lease,
		now:      time.Now,
		more:     make(chan struct{}, 1),
		ready:    make(chan struct{}, 1),
		expired:  make(chan struct{}, 1),
		queue:    make([]*Delivery, prefetch),
	}
	in.list.prev, in.list.next = &in.list, &in.list
	return in
}

// Prefetch is the most that the inbox holds now: the subscriber's prefetch, and
// what is not counted in it.
func (in *Inbox) Prefetch() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.prefetch + in.aside
}

// room is how many more may be held; the caller holds the mutex.
func (in *Inbox) room() int { return max(in.prefetch-in.held-in.returning+in.aside, 0) }

// Room is how many more messages may be put. Between two calls of Put by the
// inbox's one producer it only grows; it is 0 once the inbox has ended.
func (in *Inbox) Room() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return 0
	}
	return in.room()
}

// Idle tells whether the store has nothing to put and need not hear of more
// room: it need not be woken for each message then. It returns Room as of that
// moment, which a store that has something again must heed. Optional.
func (in *Inbox) Idle(idle bool) (room int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.idle = idle
	if in.err != nil {
		return 0
	}
	return in.room()
}

// More receives after Room has grown so far that a fetch is worth its while:
// to half the prefetch, or to anything at all while nothing is left to take.
func (in *Inbox) More() <-chan struct{} { return in.more }

// Put adds messages, names their queue, and returns those beyond the prefetch,
// which the store must give back uncounted: a store that goes by Room never
// has any. It does not block. What is put after the end is held all the same,
// so that Drain returns it.
//
// A message whose time is over is not handed out any more and does not count in
// the prefetch; the inbox sees to its end.
func (in *Inbox) Put(ds ...*Delivery) (over []*Delivery) {
	if len(ds) == 0 {
		return nil
	}
	var until, now time.Time
	if in.lease > 0 {
		until = time.Now().Add(in.lease)
	}
	expired, worth := false, false
	in.mu.Lock()
	room := in.room()
	for i, d := range ds {
		d.expired = false
		if in.q.TTL > 0 || d.Message.TTL > 0 {
			if now.IsZero() {
				now = in.now()
			}
			end := in.q.Over(&d.Message, d.Stored)
			d.expired = !end.IsZero() && !now.Before(end)
		}
		if room == 0 && !(d.expired && in.spare(len(d.Message.Body))) {
			over = ds[i:]
			break
		}
		d.handed, d.until = false, until
		d.Tag, d.Queue = d, in.q.Name
		if len(d.Message.Body) == 0 {
			d.Message.Body = empty // the same from every store
		}
		in.link(d)
		if d.expired {
			in.gone = append(in.gone, d)
			expired = true
			if in.spare(len(d.Message.Body)) {
				in.uncount(d)
			} else {
				room--
			}
			continue
		}
		room--
		j := in.head + in.n
		if j >= len(in.queue) {
			j -= len(in.queue)
		}
		in.queue[j] = d
		in.n++
	}
	if expired {
		worth = in.room() > 0 && in.worth()
	}
	in.mu.Unlock()
	if expired {
		signal(in.expired)
	}
	if worth {
		signal(in.more)
	}
	signal(in.ready)
	return over
}

// empty is the body of a message without one, as RabbitMQ's client has it too.
var empty = []byte{}

// Fail ends the inbox: every take returns err. The first call counts.
func (in *Inbox) Fail(err error) {
	in.mu.Lock()
	if in.err == nil {
		in.err = err
	}
	in.mu.Unlock()
	signal(in.ready)
	signal(in.more)
}

// orphaned reports that the inbox ended with its queue.
func (in *Inbox) orphaned() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return errors.Is(in.err, driver.ErrNotFound)
}

// Drain empties the inbox and returns what it held: prefetched but never taken,
// and taken but not settled, each oldest first. Those are no longer held. It is
// for the end, and for a lost connection that gave back all that was held.
func (in *Inbox) Drain() (prefetched, handed []*Delivery) {
	return in.drain(true)
}

// Prefetched takes out what was never taken, oldest first, and leaves the rest
// held, also what is expired. It is for consumers that can stop delivering
// before they close.
func (in *Inbox) Prefetched() []*Delivery {
	prefetched, _ := in.drain(false)
	return prefetched
}

func (in *Inbox) drain(all bool) (prefetched, handed []*Delivery) {
	defer signal(in.more)
	in.mu.Lock()
	defer in.mu.Unlock()
	for d := in.list.next; d != &in.list; {
		next := d.next
		switch {
		case !d.handed && (all || !d.expired):
			prefetched = append(prefetched, d)
			in.unlink(d)
		case all:
			handed = append(handed, d)
			in.unlink(d)
		}
		d = next
	}
	clear(in.queue)
	in.n = 0
	if all {
		in.gone = nil
	}
	in.ended = all && in.err != nil
	return prefetched, handed
}

// take moves queued deliveries to buf and waits for at least one.
func (in *Inbox) take(ctx context.Context, buf []*driver.Delivery) (int, error) {
	for {
		var now time.Time
		if in.lease > 0 {
			now = time.Now()
		}
		in.mu.Lock()
		if err := in.err; err != nil {
			in.mu.Unlock()
			signal(in.ready) // for the next one who waits
			return 0, err
		}
		n := 0
		for n < len(buf) && in.n > 0 {
			d := in.queue[in.head]
			in.queue[in.head] = nil
			if in.head++; in.head == len(in.queue) {
				in.head = 0
			}
			in.n--
			d.handed = true
			if in.lease > 0 && !now.Before(d.until) {
				in.unlink(d) // it waited here for longer than its lease
				continue
			}
			buf[n] = &d.Delivery
			n++
		}
		left, more := in.n, !in.idle && in.room() > 0
		in.mu.Unlock()
		if left > 0 {
			signal(in.ready)
		} else if more {
			signal(in.more)
		}
		if n > 0 {
			return n, nil
		}
		select {
		case <-in.ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// holds reports whether a delivery is held still.
func (in *Inbox) holds(d *Delivery) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return d.held && !in.over(d)
}

// extended notes that holds last for another lease from then on.
func (in *Inbox) extended(ds []*Delivery, from time.Time) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, d := range ds {
		d.until = from.Add(in.lease)
	}
}

func (in *Inbox) over(d *Delivery) bool { return in.lease > 0 && !time.Now().Before(d.until) }

// release ends a hold and reports whether it lasted until now.
func (in *Inbox) release(d *Delivery) bool {
	lasted, worth := in.unhold(d, false)
	if worth {
		signal(in.more)
	}
	return lasted
}

// unhold is release without word to the store, which the caller owes it where a
// fetch is worth its while now. What returns to its queue makes no room until
// returned is called: it goes before what a fetch for that room would bring.
func (in *Inbox) unhold(d *Delivery, returns bool) (lasted, worth bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !d.held {
		return false, false
	}
	lasted = !in.over(d)
	if !d.handed && !d.expired {
		in.unqueue(d)
	}
	in.unlink(d)
	if returns && lasted {
		in.returning++
		return true, false
	}
	return lasted, in.worth()
}

// returned makes room for another after a message went back to its queue.
func (in *Inbox) returned() {
	in.mu.Lock()
	in.returning--
	worth := in.worth()
	in.mu.Unlock()
	if worth {
		signal(in.more)
	}
}

// worth reports whether a fetch is worth its while.
func (in *Inbox) worth() bool {
	return !in.idle && (in.n == 0 || in.room() >= (in.prefetch+1)/2)
}

// restore undoes a release after a settlement that did not take place.
func (in *Inbox) restore(d *Delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.ended && !d.held {
		in.link(d)
	}
}

// unqueue takes a delivery whose hold was lost out of the ring.
func (in *Inbox) unqueue(d *Delivery) {
	rest := make([]*Delivery, 0, len(in.queue))
	for i := range in.n {
		if e := in.queue[(in.head+i)%len(in.queue)]; e != d {
			rest = append(rest, e)
		}
	}
	in.n, in.head = len(rest), 0
	in.queue = slices.Grow(rest, len(in.queue)-len(rest))[:len(in.queue)]
}

// holding is a copy of what is held, oldest first, appended to ds.
func (in *Inbox) holding(ds []*Delivery) []*Delivery {
	in.mu.Lock()
	defer in.mu.Unlock()
	for d := in.list.next; d != &in.list; d = d.next {
		ds = append(ds, d)
	}
	return ds
}

func (in *Inbox) link(d *Delivery) {
	d.prev, d.next = in.list.prev, &in.list
	d.prev.next, d.next.prev = d, d
	d.held = true
	in.held++
}

func (in *Inbox) unlink(d *Delivery) {
	d.prev.next, d.next.prev = d.next, d.prev
	d.prev, d.next = nil, nil
	d.held = false
	in.held--
	if d.aside {
		d.aside = false
		in.aside--
		in.asideBytes -= int(d.size)
	}
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
