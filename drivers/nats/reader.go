package nats

import (
	"slices"
	"time"
)

// reader is one consumer in the book.
type reader struct {
	id    string
	limit int           // holds so many at most
	lease time.Duration // lasts so long without a sign
	until int64
	holds map[uint64]*entry
}

func (b *book) reader(id string) *reader {
	for _, r := range b.readers {
		if r.id == id {
			return r
		}
	}
	return nil
}

// strike removes a reader that holds nothing.
func (b *book) strike(r *reader) {
	b.readers = slices.DeleteFunc(b.readers, func(o *reader) bool { return o == r })
	b.turn = slices.DeleteFunc(b.turn, func(o *reader) bool { return o == r })
	if r.limit > 0 {
		b.unused()
	}
}

// consumers is how many readers take messages: one whose limit is 0 has left,
// but for what it holds.
func (b *book) consumers() (n int) {
	for _, r := range b.readers {
		if r.limit > 0 {
			n++
		}
	}
	return n
}

// unused notes the time if nobody reads any more.
func (b *book) unused() {
	if b.consumers() == 0 {
		b.idle = b.now
	}
}

// next is who gets the next message; nil: nobody can.
func (b *book) next() *reader {
	if b.q.SingleActiveConsumer {
		for _, r := range b.readers {
			if r.limit > 0 {
				if len(r.holds) < r.limit {
					return r
				}
				return nil
			}
		}
		return nil
	}
	for i, r := range b.turn {
		if len(r.holds) < r.limit {
			copy(b.turn[i:], b.turn[i+1:])
			b.turn[len(b.turn)-1] = r
			return r
		}
	}
	return nil
}

// unsettled is how many messages readers hold.
func (b *book) unsettled() (n int) {
	for _, r := range b.readers {
		n += len(r.holds)
	}
	return n
}
