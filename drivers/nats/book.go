package nats

import (
	"container/heap"
	"time"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// bookRules is the version of the rules by which a book follows from a stream.
// Two programs with different rules would have different books.
const bookRules = "1"

// book is what stands in a kept queue: which messages wait, in which order,
// and who holds the others. It follows from the messages of the queue's
// stream, taken one after the other, and from nothing else; the time too is
// that at which the server stored them. So all who read the stream have the
// same book, and what two of them wanted at once was decided by the server's
// order.
type book struct {
	q   *emulate.Queue
	now int64 // Unix nanoseconds; never goes back

	entries map[uint64]*entry // by sequence
	levels  []level
	ready   int   // in the levels
	bytes   int64 // of them
	delayed byDue
	left    []*entry // given up by the queue, for Sweep

	readers []*reader // in the order in which they came
	turn    []*reader // whose turn it is next
	used    bool      // there was a reader
	idle    int64     // since when there is none, and the queue was not touched

	refused   []refusal // the latest
	forgotten uint64    // refusals up to here may be missing there
	taken     uint64    // the last message that was not refused
	gone      []uint64  // not here any more, and in the stream perhaps still
	purged    []purged  // the latest

	given func(r *reader, e *entry) // hears what a reader gets
	ended func(r *reader)           // hears that a reader's lease has run out
}

// entry is one message.
type entry struct {
	seq    uint64
	level  int
	size   int   // of the body
	stored int64 // when, by the server's clock
	over   int64 // when its time is over; 0: never

	failed int     // attempts that ended without success
	gen    uint64  // how often a reader got it
	reader *reader // holds it
	due    int64   // given back, and not to be had before; 0: waits
	reason emulate.Reason
	swept  int64 // until then no other Sweep gets it
}

func newBook(q *emulate.Queue) *book {
	return &book{q: q, entries: map[uint64]*entry{}, levels: make([]level, q.MaxPriority+1)}
}

func newEntry(q *emulate.Queue, seq uint64, at int64, priority, size int, ttl time.Duration) *entry {
	e := &entry{seq: seq, level: min(priority, q.MaxPriority), size: size, stored: at}
	if q.TTL > 0 && (ttl <= 0 || q.TTL < ttl) {
		ttl = q.TTL
	}
	if ttl > 0 {
		e.over = at + int64(ttl)
	}
	return e
}

// message enters a message, unless the queue is full and refuses.
func (b *book) message(seq uint64, at int64, priority, size int, ttl time.Duration) {
	b.advance(at)
	if b.q.Overflow == routing.RejectPublish && (b.q.MaxLength > 0 && b.ready+1 > b.q.MaxLength || b.q.MaxBytes > 0 && b.bytes+int64(size) > b.q.MaxBytes) {
		b.refuse(seq)
		b.gone = append(b.gone, seq)
		return
	}
	b.taken = seq
	e := newEntry(b.q, seq, at, priority, size, ttl)
	b.entries[seq] = e
	b.enqueue(e)
	b.run()
}

// advance brings about what comes with time.
func (b *book) advance(at int64) {
	b.now = max(b.now, at)
	for i := 0; i < len(b.readers); {
		if r := b.readers[i]; r.until <= b.now {
			for _, e := range r.holds {
				b.giveBack(e, true, 0)
			}
			b.strike(r)
			if b.ended != nil {
				b.ended(r)
			}
		} else {
			i++
		}
	}
	for len(b.delayed) > 0 && b.delayed[0].due <= b.now {
		e := heap.Pop(&b.delayed).(*entry)
		e.due = 0
		b.enqueue(e)
	}
	n := 0
	for n < len(b.refused) && b.refused[n].at+refusalTime < b.now {
		n++
	}
	b.forget(n)
	b.forgetPurges()
	b.returned()
}

// returned keeps the limits after messages were given back, which comes before
// they are handed out again, as RabbitMQ has it.
func (b *book) returned() {
	b.limit()
	b.run()
}

// run hands out what can be, and then keeps the limits.
func (b *book) run() {
	b.expire()
	for b.ready > 0 {
		r := b.next()
		if r == nil {
			break
		}
		e := b.dequeue()
		e.gen++
		e.reader = r
		r.holds[e.seq] = e
		if b.given != nil {
			b.given(r, e)
		}
		b.expire()
	}
	b.limit()
}

// limit drops from the head what is too much.
func (b *book) limit() {
	if b.q.Overflow == routing.RejectPublish {
		return // what is given back may exceed it
	}
	for b.q.MaxLength > 0 && b.ready > b.q.MaxLength || b.q.MaxBytes > 0 && b.bytes > b.q.MaxBytes {
		b.giveUp(b.dequeue(), emulate.Overflown)
	}
}

// expire takes what is over from the head.
func (b *book) expire() {
	for e := b.head(); e != nil && e.over > 0 && e.over <= b.now; e = b.head() {
		b.giveUp(b.dequeue(), emulate.Expired)
	}
}

// giveBack ends a hold, as an attempt or without one.
func (b *book) giveBack(e *entry, attempt bool, delay time.Duration) {
	delete(e.reader.holds, e.seq)
	e.reader = nil
	if attempt {
		e.failed++
	}
	if delay > 0 {
		e.due = b.now + int64(delay)
		heap.Push(&b.delayed, e)
		return
	}
	b.enqueue(e)
}

// giveUp takes an entry out of the queue: for Sweep, where a dead-letter
// exchange may take it.
func (b *book) giveUp(e *entry, reason emulate.Reason) {
	if b.q.DeadLetterExchange == "" {
		b.remove(e)
		return
	}
	e.reason = reason
	b.left = append(b.left, e)
}

func (b *book) remove(e *entry) {
	delete(b.entries, e.seq)
	b.gone = append(b.gone, e.seq)
}

// sweep takes at most n entries that were given up, for no other Sweep to get
// before the lease is over.
func (b *book) sweep(n int, lease time.Duration) (took []*entry) {
	for _, e := range b.left {
		if len(took) == n {
			break
		}
		if e.swept <= b.now {
			e.swept = b.now + int64(lease)
			took = append(took, e)
		}
	}
	return took
}

// unswept is how many entries a Sweep could get.
func (b *book) unswept(now int64) (n int) {
	for _, e := range b.left {
		if e.swept <= now {
			n++
		}
	}
	return n
}

// due is when something happens by itself that readers wait for; 0: never.
func (b *book) due() int64 {
	var due int64
	sooner := func(t int64) {
		if due == 0 || t < due {
			due = t
		}
	}
	for _, r := range b.readers {
		sooner(r.until)
	}
	if len(b.delayed) > 0 {
		sooner(b.delayed[0].due)
	}
	return due
}
