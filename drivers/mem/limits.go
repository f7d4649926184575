package mem

import (
	"math"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// over reports whether the ready messages with n more, of so many bytes, are
// more than the queue's limits.
func (q *queue) over(n, bytes int) bool {
	length, size := q.def.MaxLength, q.def.MaxBytes
	if length == 0 {
		length = math.MaxInt
	}
	if size == 0 {
		size = math.MaxInt64
	}
	return q.ready.n+n > length || q.ready.bytes+int64(bytes) > size
}

// refuses reports whether the queue has no room for a new message. What was
// published just before may have consumers that wait for it.
func (q *queue) refuses(bytes int) bool {
	if q.def.Overflow != routing.RejectPublish || !q.over(1, bytes) {
		return false
	}
	q.share()
	return q.over(1, bytes)
}

// trim drops from the head what is beyond the limits.
func (q *queue) trim() {
	if q.def.Overflow == routing.RejectPublish {
		return
	}
	for q.ready.n > 0 && q.over(0, 0) {
		if it := q.ready.pop(); q.def.DeadLetterExchange != "" {
			q.dead.add(it, emulate.Overflown)
		}
	}
}
