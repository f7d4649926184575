package mem

import (
	"container/heap"

	"github.com/polymq/polymq/driver/emulate"
)

// level is the ready messages of one priority. Those that nobody has touched
// are in fresh, in their order; those that came back are in back, all before
// fresh.
type level struct {
	fresh ring
	back  bySeq
}

// levels is the ready messages of a queue, by their priority: a queue without
// priorities has one level.
type levels struct {
	at    []level
	n     int
	bytes int64 // of their bodies
}

func newLevels(q *emulate.Queue) levels { return levels{at: make([]level, q.MaxPriority+1)} }

func (l *levels) of(it *item) *level {
	return &l.at[min(int(it.message.Priority), len(l.at)-1)]
}

// push adds a message that is new.
func (l *levels) push(it *item) {
	l.of(it).fresh.push(it)
	l.n++
	l.bytes += int64(len(it.message.Body))
}

// putBack returns a message to its place.
func (l *levels) putBack(it *item) {
	heap.Push(&l.of(it).back, it)
	l.n++
	l.bytes += int64(len(it.message.Body))
}

// first is the level of the message to be delivered next; nil where nothing is
// ready.
func (l *levels) first() *level {
	for i := len(l.at) - 1; i >= 0; i-- {
		if v := &l.at[i]; len(v.back)+v.fresh.n > 0 {
			return v
		}
	}
	return nil
}

// head is the message to be delivered next; nil where nothing is ready.
func (l *levels) head() *item {
	v := l.first()
	switch {
	case v == nil:
		return nil
	case len(v.back) > 0:
		return v.back[0]
	}
	return v.fresh.head()
}

// pop takes the message to be delivered next; one is ready.
func (l *levels) pop() *item {
	v := l.first()
	var it *item
	if len(v.back) > 0 {
		it = heap.Pop(&v.back).(*item)
	} else {
		it = v.fresh.pop()
	}
	l.n--
	l.bytes -= int64(len(it.message.Body))
	return it
}

// clear forgets everything.
func (l *levels) clear() { *l = levels{at: make([]level, len(l.at))} }

// keepDurable forgets transient messages.
func (l *levels) keepDurable() {
	old := l.at
	l.clear()
	for i := range old {
		v := &old[i]
		for v.fresh.n > 0 {
			if it := v.fresh.pop(); !it.message.Transient {
				l.push(it)
			}
		}
		for _, it := range v.back {
			if !it.message.Transient {
				l.putBack(it)
			}
		}
	}
}
