package nats

import "slices"

// purged is what a purge took. Who misses the outcome of one, since the book
// was loaded past it, sends it again under its name and has it from here.
type purged struct {
	name string
	n    int
	at   int64
}

const (
	purgedTime = refusalTime
	maxPurged  = 100
)

// purgeOnce removes what waits up to the message that the list names, unless the
// purge of that name did so before; it returns how much that was.
func (b *book) purgeOnce(name string, list [][]int64) (n int) {
	if i := slices.IndexFunc(b.purged, func(p purged) bool { return p.name == name }); i >= 0 {
		return b.purged[i].n
	}
	for _, item := range list {
		if len(item) > 0 {
			n += b.purge(uint64(item[0]))
		}
	}
	b.purged = append(b.purged, purged{name, n, b.now})
	return n
}

// forgetPurges drops those that nobody asks for any more.
func (b *book) forgetPurges() {
	n := max(0, len(b.purged)-maxPurged)
	for n < len(b.purged) && b.purged[n].at+purgedTime < b.now {
		n++
	}
	b.purged = slices.Delete(b.purged, 0, n)
}
