package mem

import (
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// item is a message in a queue, as it was published.
type item struct {
	message  driver.Message // with the room for its body
	exchange string
	stored   int64             // when, in ns of Unix time; it is small, as many are kept
	seq      uint64            // its place
	attempts int               // deliveries that count
	hold     *emulate.Delivery // what consumers have it by
}

// The most that a queue keeps to use it again: items, and the room for a body.
const (
	maxSpare = 256
	maxSpace = 4 << 10
)

// newItem is an item with a copy of all of a message that others could change.
func (q *queue) newItem(m *driver.Message) *item {
	it := q.spareItem(len(m.Body))
	space := it.message.Body[:0]
	it.message = *m
	it.message.Header = copyHeader(m.Header)
	it.message.Body = append(space, m.Body...)
	return it
}

// spareItem has room for a body of n bytes in the same allocation where it is
// new and that is few.
func (q *queue) spareItem(n int) *item {
	if last := len(q.spare) - 1; last >= 0 {
		it := q.spare[last]
		q.spare[last] = nil
		q.spare = q.spare[:last]
		return it
	}
	if n == 0 || n > inline {
		return new(item)
	}
	x := new(struct {
		item
		space [inline]byte
	})
	x.message.Body = x.space[:]
	return &x.item
}

// done keeps an item whose message nobody will get again, to use it for
// another. Deliveries may lead to it still, but none that it is held by.
func (q *queue) done(it *item) {
	if len(q.spare) < maxSpare && cap(it.message.Body) <= maxSpace {
		it.message.Header = nil // what else there is takes little room
		q.spare = append(q.spare, it)
	}
}

// handOut makes a delivery of a message, and the room for its body as newItem
// does. A later one is another, so that a settlement that comes late finds
// nothing to settle.
func handOut(it *item) *emulate.Delivery {
	d, space := newDelivery(len(it.message.Body))
	copyMessage(&d.Message, &it.message, space)
	d.Exchange, d.Attempt, d.Redelivered = it.exchange, it.attempts+1, it.attempts > 0
	d.Stored, d.Seq, d.Ref = time.Unix(0, it.stored), it.seq, it
	return d
}

func newDelivery(n int) (*emulate.Delivery, []byte) {
	if n == 0 || n > inline {
		return new(emulate.Delivery), nil
	}
	x := new(struct {
		emulate.Delivery
		space [inline]byte
	})
	return &x.Delivery, x.space[:]
}

// itemOf is the message that a delivery is of.
func itemOf(d *emulate.Delivery) *item { return d.Ref.(*item) }
