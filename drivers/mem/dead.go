package mem

import (
	"cmp"
	"slices"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

// sweepLease is how long what a sweep took is kept from the next one.
const sweepLease = 30 * time.Second

// dead is what the queue gave up and nobody has taken to the dead letters yet:
// it is no longer in the queue, nor lost. The zero value is empty.
type dead struct {
	n       uint64
	waiting []*corpse // in the order in which they died
	taken   map[*item]*corpse
}

// corpse is a message that is dead.
type corpse struct {
	item   *item
	n      uint64 // the order of dying
	reason emulate.Reason
	by     *store // who took it
	until  time.Time
}

func (x *dead) add(it *item, reason emulate.Reason) {
	x.n++
	x.waiting = append(x.waiting, &corpse{item: it, n: x.n, reason: reason})
}

// take hands out the first of those that wait, for a lease.
func (x *dead) take(by *store, now time.Time) *corpse {
	d := x.waiting[0]
	x.waiting[0] = nil
	if x.waiting = x.waiting[1:]; len(x.waiting) == 0 {
		x.waiting = nil
	}
	d.by, d.until = by, now.Add(sweepLease)
	if x.taken == nil {
		x.taken = map[*item]*corpse{}
	}
	x.taken[d.item] = d
	return d
}

// drop ends what was taken, whoever has it.
func (x *dead) drop(it *item) {
	if x.taken[it] != nil {
		delete(x.taken, it)
		return
	}
	// Its lease may have ended before the one who took it did.
	x.waiting = slices.DeleteFunc(x.waiting, func(d *corpse) bool { return d.item == it })
}

// returns makes those wait again that lost answers true for.
func (x *dead) returns(lost func(*corpse) bool) {
	back := false
	for it, d := range x.taken {
		if lost(d) {
			delete(x.taken, it)
			x.waiting = append(x.waiting, d)
			back = true
		}
	}
	if back {
		slices.SortFunc(x.waiting, func(a, b *corpse) int { return cmp.Compare(a.n, b.n) })
	}
}

// restart makes all wait again, but for transient messages, which are gone.
func (x *dead) restart() {
	x.returns(func(*corpse) bool { return true })
	x.waiting = slices.DeleteFunc(x.waiting, func(d *corpse) bool { return d.item.message.Transient })
}
