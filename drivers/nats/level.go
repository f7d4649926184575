package nats

import (
	"cmp"
	"container/heap"
	"slices"
)

// level are the waiting messages of one priority: those given back, which were
// all before the others, and those that nobody had.
type level struct {
	back  bySeq
	fresh []*entry
	next  int // in fresh
}

// head is what a reader would get next.
func (b *book) head() *entry {
	for i := len(b.levels) - 1; i >= 0; i-- {
		if l := &b.levels[i]; len(l.back) > 0 {
			return l.back[0]
		} else if l.next < len(l.fresh) {
			return l.fresh[l.next]
		}
	}
	return nil
}

func (b *book) dequeue() *entry {
	e := b.head()
	l := &b.levels[e.level]
	if len(l.back) > 0 {
		heap.Pop(&l.back)
	} else {
		l.fresh[l.next] = nil
		if l.next++; l.next > 64 && l.next > len(l.fresh)/2 {
			l.fresh = slices.Delete(l.fresh, 0, l.next)
			l.next = 0
		}
	}
	b.ready--
	b.bytes -= int64(e.size)
	return e
}

// enqueue makes an entry wait.
func (b *book) enqueue(e *entry) {
	l := &b.levels[e.level]
	if e.gen > 0 {
		heap.Push(&l.back, e)
	} else {
		l.fresh = append(l.fresh, e)
	}
	b.ready++
	b.bytes += int64(e.size)
}

// purge removes what waits of the messages up to one, and says how much that
// was.
func (b *book) purge(last uint64) (n int) {
	old := func(e *entry) bool {
		if e.seq > last {
			return false
		}
		n++
		b.remove(e)
		return true
	}
	waiting := func(e *entry) bool {
		if !old(e) {
			return false
		}
		b.ready--
		b.bytes -= int64(e.size)
		return true
	}
	for i := range b.levels {
		l := &b.levels[i]
		l.back = slices.DeleteFunc(l.back, waiting)
		heap.Init(&l.back)
		l.fresh = slices.DeleteFunc(slices.Delete(l.fresh, 0, l.next), waiting)
		l.next = 0
	}
	b.delayed = slices.DeleteFunc(b.delayed, old)
	heap.Init(&b.delayed)
	return n
}

// bySeq and byDue are heaps.
type (
	bySeq []*entry
	byDue []*entry
)

func (h bySeq) Len() int           { return len(h) }
func (h bySeq) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h bySeq) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *bySeq) Push(x any)        { *h = append(*h, x.(*entry)) }
func (h *bySeq) Pop() any          { return pop((*[]*entry)(h)) }

func (h byDue) Len() int { return len(h) }
func (h byDue) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(h[i].due, h[j].due), cmp.Compare(h[i].seq, h[j].seq)) < 0
}
func (h byDue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byDue) Push(x any)   { *h = append(*h, x.(*entry)) }
func (h *byDue) Pop() any     { return pop((*[]*entry)(h)) }

func pop(h *[]*entry) *entry {
	last := len(*h) - 1
	e := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return e
}
