package emulate

import (
	"context"
	"sync"

	"github.com/polymq/polymq/driver"
)

// Delivery is a message in an inbox: what the application sees, and what the
// store needs to settle it.
type Delivery struct {
	driver.Delivery

	// The store's own.
	Seq, Gen uint64
	Ref      any

	// Guarded by the inbox's mutex.
	prev, next *Delivery
	handed     bool
	held       bool
}

// Inbox is where a store's consumer puts messages and a subscriber takes them.
// It holds at most its prefetch of messages that are not settled. Safe for
// concurrent use.
type Inbox struct {
	prefetch int
	more     chan struct{} // cap 1: there is room worth a fetch
	ready    chan struct{} // cap 1: something to take, or the end

	mu    sync.Mutex
	queue []*Delivery // ring of cap prefetch: put, not yet taken
	head  int
	n     int
	held  int      // put and not yet released, the queued ones included
	list  Delivery // sentinel of the ring of held deliveries, oldest first
	err   error    // the end
}

func newInbox(prefetch int) *Inbox {
	in := &Inbox{
		prefetch: prefetch,
		more:     make(chan struct{}, 1),
		ready:    make(chan struct{}, 1),
		queue:    make([]*Delivery, prefetch),
	}
	in.list.prev, in.list.next = &in.list, &in.list
	return in
}

// Prefetch is the most that the inbox holds.
func (in *Inbox) Prefetch() int { return in.prefetch }

// Room is how many more messages may be put. Between two calls of Put by the
// inbox's one producer it only grows; it is 0 once the inbox has ended.
func (in *Inbox) Room() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err != nil {
		return 0
	}
	return in.prefetch - in.held
}

// More receives after Room has grown so far that a fetch is worth its while:
// to half the prefetch, or to anything at all while nothing is left to take.
func (in *Inbox) More() <-chan struct{} { return in.more }

// Put adds messages, at most Room of them. It does not block. What is put
// after the end is held all the same, so that Drain returns it.
func (in *Inbox) Put(ds ...*Delivery) {
	if len(ds) == 0 {
		return
	}
	in.mu.Lock()
	for _, d := range ds {
		if in.n == len(in.queue) {
			in.mu.Unlock()
			panic("emulate: a store put more into an inbox than there is room for")
		}
		in.queue[(in.head+in.n)%len(in.queue)] = d
		in.n++
		in.held++
		d.held = true
		d.prev, d.next = in.list.prev, &in.list
		d.prev.next, d.next.prev = d, d
	}
	in.mu.Unlock()
	signal(in.ready)
}

// Fail ends the inbox: what is queued can still be taken, then every take
// returns err. The first call counts.
func (in *Inbox) Fail(err error) {
	in.mu.Lock()
	if in.err == nil {
		in.err = err
	}
	in.mu.Unlock()
	signal(in.ready)
	signal(in.more)
}

// Drain empties the inbox after the end and returns what it held: prefetched
// but never taken, and taken but not settled, each oldest first. Those are no
// longer held.
func (in *Inbox) Drain() (prefetched, handed []*Delivery) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for d := in.list.next; d != &in.list; d = in.list.next {
		if d.handed {
			handed = append(handed, d)
		} else {
			prefetched = append(prefetched, d)
		}
		in.unlink(d)
	}
	clear(in.queue)
	in.n = 0
	return prefetched, handed
}

// take moves queued deliveries to buf and waits for at least one.
func (in *Inbox) take(ctx context.Context, buf []*driver.Delivery) (int, error) {
	for {
		in.mu.Lock()
		if in.n > 0 {
			n := min(len(buf), in.n)
			for i := range n {
				d := in.queue[in.head]
				in.queue[in.head] = nil
				in.head = (in.head + 1) % len(in.queue)
				d.handed = true
				buf[i] = &d.Delivery
			}
			in.n -= n
			left, room := in.n, in.prefetch-in.held
			in.mu.Unlock()
			if left > 0 {
				signal(in.ready)
			} else if room > 0 {
				signal(in.more)
			}
			return n, nil
		}
		err := in.err
		in.mu.Unlock()
		if err != nil {
			signal(in.ready) // for the next one who waits
			return 0, err
		}
		select {
		case <-in.ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// release ends a hold and reports whether there was one.
func (in *Inbox) release(d *Delivery) bool {
	in.mu.Lock()
	if !d.held {
		in.mu.Unlock()
		return false
	}
	in.unlink(d)
	room := in.prefetch - in.held
	worth := room >= (in.prefetch+1)/2 || in.n == 0
	in.mu.Unlock()
	if worth {
		signal(in.more)
	}
	return true
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

func (in *Inbox) unlink(d *Delivery) {
	d.prev.next, d.next.prev = d.next, d.prev
	d.prev, d.next = nil, nil
	d.held = false
	in.held--
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
