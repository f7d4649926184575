package mem

import (
	"hash/maphash"
	"time"
)

// maxGeneration bounds the memory of a queue's deduplication to some 130 MB, a
// tenth of that at 5,000 messages a second. Above 100,000 messages with IDs of
// their own a second the window becomes shorter, which is said once.
const maxGeneration = 1 << 21

var seeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

// dedup remembers the IDs of the last 20 to 40 seconds in two generations.
type dedup struct {
	young, old idSet
	since      time.Time // of young
	short      bool      // the window has been shorter
}

// add notes an ID; false where it is known.
func (d *dedup) add(id string, now time.Time) bool {
	if age := now.Sub(d.since); age >= dedupWindow || d.young.n >= maxGeneration {
		d.short = d.short || age < dedupWindow
		d.young, d.old = d.old, d.young
		d.young.clear()
		if age >= 2*dedupWindow {
			d.old.clear()
		}
		d.since = now
	}
	h := hashes(id)
	return !d.old.has(h) && d.young.add(h)
}

// has reports whether an ID is known.
func (d *dedup) has(id string, now time.Time) bool {
	age := now.Sub(d.since)
	if age >= 2*dedupWindow {
		return false
	}
	h := hashes(id)
	return age < dedupWindow && d.old.has(h) || d.young.has(h)
}

func hashes(id string) [2]uint64 {
	return [2]uint64{maphash.String(seeds[0], id) | 1, maphash.String(seeds[1], id)}
}

// idSet is a set of hashes of 127 bits, of which no two IDs have the same. It
// is open addressing in one array, which costs one cache miss where a map
// costs several. Zero marks a free place.
type idSet struct {
	at []([2]uint64) // the length is a power of two, at most half of it used
	n  int
}

// place is where h is, or the free place where it belongs.
func (s *idSet) place(h [2]uint64) int {
	mask := len(s.at) - 1
	i := int(h[1]) & mask
	for s.at[i][0] != 0 && s.at[i] != h {
		i = (i + 1) & mask
	}
	return i
}

func (s *idSet) has(h [2]uint64) bool { return s.n > 0 && s.at[s.place(h)] == h }

// add is false where h is there already.
func (s *idSet) add(h [2]uint64) bool {
	if 2*s.n >= len(s.at) {
		old := s.at
		s.at = make([][2]uint64, max(2*len(old), 64))
		for _, h := range old {
			if h[0] != 0 {
				s.at[s.place(h)] = h
			}
		}
	}
	i := s.place(h)
	if s.at[i] == h {
		return false
	}
	s.at[i] = h
	s.n++
	return true
}

// clear keeps no more memory than what was in use asks for.
func (s *idSet) clear() {
	if 16*s.n < len(s.at) {
		s.at = nil
	}
	clear(s.at)
	s.n = 0
}
