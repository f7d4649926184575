package redis

import (
	"strconv"
	"sync"

	"github.com/polymq/polymq/driver/emulate"
)

// item is a parcel in the form in which it is sent. It is a copy: a caller that
// has given up may change its message.
type item struct {
	parcel *emulate.Parcel
	queue  *queue
	fields []emulate.Field
	words  []byte // the arguments of the function append that it is
	count  int    // of these
	failed error
}

var items = sync.Pool{New: func() any { return new(item) }}

func newItem(p *emulate.Parcel, q *queue) *item {
	it := items.Get().(*item)
	m := p.Publishing.Message
	dedup := ""
	if m.ID != "" || p.Retry || p.DedupID != p.Publishing.ID {
		// Somebody else may send this ID again: the lane's numbers do not tell.
		dedup = p.DedupID
	}
	it.parcel, it.queue, it.failed = p, q, nil
	it.fields = emulate.AppendFields(it.fields[:0], m, p.Publishing.ID, p.Exchange)
	n := 2*len(it.fields) + 2 // with the body
	it.count = 2 + n
	var digits [20]byte
	b := appendWord(it.words[:0], dedup)
	b = appendWord(b, strconv.AppendInt(digits[:0], int64(n), 10))
	for i := range it.fields {
		b = appendWord(appendWord(b, it.fields[i].Name), it.fields[i].Value)
	}
	it.words = appendWord(appendWord(b, bodyField), m.Body)
	return it
}

// bodyField is the last one.
const bodyField = "body"

// none holds the place of an item that is not to be stored any more: the server
// answers by it.
var none = appendWord(appendWord(nil, ""), "0")

// send gives its words, and how many these are.
func (it *item) send() (words []byte, count int) {
	if it.parcel == nil {
		return none, 2
	}
	return it.words, it.count
}

func (it *item) free() {
	it.parcel, it.queue, it.failed = nil, nil, nil
	clear(it.fields)
	if cap(it.words) <= maxBuffer {
		items.Put(it)
	}
}
