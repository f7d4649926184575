package mem

import "time"

// ring is a queue of items in the order in which they were pushed.
type ring struct {
	items []*item // the length is a power of two
	first int
	n     int
}

func (r *ring) push(it *item) {
	if r.n == len(r.items) {
		items := make([]*item, max(2*len(r.items), 8))
		for i := range r.n {
			items[i] = r.items[(r.first+i)&(len(r.items)-1)]
		}
		r.items, r.first = items, 0
	}
	r.items[(r.first+r.n)&(len(r.items)-1)] = it
	r.n++
}

// head is the first; there is one.
func (r *ring) head() *item { return r.items[r.first] }

func (r *ring) pop() *item {
	it := r.items[r.first]
	r.items[r.first] = nil
	r.first = (r.first + 1) & (len(r.items) - 1)
	r.n--
	return it
}

// bySeq is a heap of items by their place.
type bySeq []*item

func (h bySeq) Len() int           { return len(h) }
func (h bySeq) Less(i, j int) bool { return h[i].seq < h[j].seq }
func (h bySeq) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *bySeq) Push(x any)        { *h = append(*h, x.(*item)) }
func (h *bySeq) Pop() any          { return pop((*[]*item)(h)) }

// delayed is an item that is to wait until then.
type delayed struct {
	item *item
	due  time.Time
}

// byDue is a heap of delayed items by when they are due, then by place.
type byDue []*delayed

func (h byDue) Len() int { return len(h) }
func (h byDue) Less(i, j int) bool {
	if c := h[i].due.Compare(h[j].due); c != 0 {
		return c < 0
	}
	return h[i].item.seq < h[j].item.seq
}
func (h byDue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byDue) Push(x any)   { *h = append(*h, x.(*delayed)) }
func (h *byDue) Pop() any     { return pop((*[]*delayed)(h)) }

func pop[T any](h *[]*T) *T {
	last := len(*h) - 1
	x := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return x
}
