package mem

import (
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// item is a message in a queue, as it was published.
type item struct {
	message  driver.Message
	exchange string
	stored   int64             // when, in ns of Unix time; it is small, as many are kept
	seq      uint64            // its place
	attempts int               // deliveries that count
	hold     *emulate.Delivery // what consumers have it by
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
