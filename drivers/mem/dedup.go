package mem

import (
	"hash/maphash"
	"time"
)

// maxGeneration bounds the memory of a queue's deduplication to some 40 MB:
// above 25,000 messages a second the window becomes shorter.
const maxGeneration = 1 << 19

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// dedup remembers the IDs of the last 20 to 40 seconds, as 128-bit hashes in
// two generations.
type dedup struct {
	young, old map[[2]uint64]struct{}
	since      time.Time // of young
}

// add notes an ID; false where it is known.
func (d *dedup) add(id string, now time.Time) bool {
	if age := now.Sub(d.since); age >= dedupWindow || len(d.young) >= maxGeneration {
		d.young, d.old = d.old, d.young
		clear(d.young)
		if age >= 2*dedupWindow {
			clear(d.old)
		}
		if d.young == nil {
			d.young = map[[2]uint64]struct{}{}
		}
		d.since = now
	}
	h := [2]uint64{maphash.String(seeds[0], id), maphash.String(seeds[1], id)}
	if _, known := d.old[h]; known {
		return false
	}
	n := len(d.young)
	d.young[h] = struct{}{}
	return len(d.young) > n
}
