package routing

import (
	"hash/maphash"
	"math/bits"
	"slices"
)

var seed = maphash.MakeSeed()

func hashOf(s string) uint64 { return maphash.String(seed, s) }

// A hamt is a persistent hash trie: put and del leave the old one as it was and
// share with it all but the path to the change. A slot is a *hamt, a leaf of
// the user's own type, or a *clash. Nil is the empty trie.
type hamt struct {
	bits  uint32
	slots []any
}

// A clash holds leaves whose hashes are the same in all 64 bits.
type clash struct{ leaves []any }

// A keying says what the leaves of a trie are filed under.
type keying interface {
	hash(leaf any) uint64
	same(a, b any) bool
}

const (
	fanBits  = 5
	fanMask  = 1<<fanBits - 1
	maxShift = 64
)

// get returns the leaf filed under hash, if any; the caller compares it with
// what it looks for. It may be a *clash.
func (h *hamt) get(hash uint64) any {
	for h != nil {
		bit := uint32(1) << (hash & fanMask)
		if h.bits&bit == 0 {
			return nil
		}
		s := h.slots[bits.OnesCount32(h.bits&(bit-1))]
		sub, ok := s.(*hamt)
		if !ok {
			return s
		}
		h, hash = sub, hash>>fanBits
	}
	return nil
}

// find returns the leaf that is the same as like.
func (h *hamt) find(k keying, hash uint64, like any) any {
	s := h.get(hash)
	if c, ok := s.(*clash); ok {
		for _, leaf := range c.leaves {
			if k.same(leaf, like) {
				return leaf
			}
		}
		return nil
	}
	if s == nil || !k.same(s, like) {
		return nil
	}
	return s
}

// put files leaf, in place of the one that is the same. With own, h is nobody
// else's and is changed in place.
func (h *hamt) put(k keying, hash uint64, leaf any, own bool) *hamt {
	return h.putAt(k, hash, 0, leaf, own)
}

func (h *hamt) putAt(k keying, hash uint64, shift int, leaf any, own bool) *hamt {
	bit := uint32(1) << (hash >> shift & fanMask)
	if h == nil {
		return &hamt{bit, []any{leaf}}
	}
	i := bits.OnesCount32(h.bits & (bit - 1))
	if h.bits&bit == 0 {
		slots := make([]any, len(h.slots)+1)
		copy(slots, h.slots[:i])
		slots[i] = leaf
		copy(slots[i+1:], h.slots[i:])
		if own {
			h.bits, h.slots = h.bits|bit, slots
			return h
		}
		return &hamt{h.bits | bit, slots}
	}
	var slot any
	switch s := h.slots[i].(type) {
	case *hamt:
		slot = s.putAt(k, hash, shift+fanBits, leaf, own)
	case *clash:
		slot = s.put(k, leaf)
	default:
		switch {
		case k.same(s, leaf):
			slot = leaf
		case shift+fanBits >= maxShift:
			slot = &clash{[]any{s, leaf}}
		default:
			var sub *hamt
			sub = sub.putAt(k, k.hash(s), shift+fanBits, s, own)
			slot = sub.putAt(k, hash, shift+fanBits, leaf, true)
		}
	}
	return h.with(i, slot, own)
}

func (h *hamt) with(i int, slot any, own bool) *hamt {
	if own {
		h.slots[i] = slot
		return h
	}
	slots := slices.Clone(h.slots)
	slots[i] = slot
	return &hamt{h.bits, slots}
}

func (c *clash) put(k keying, leaf any) *clash {
	leaves := slices.DeleteFunc(slices.Clone(c.leaves), func(l any) bool { return k.same(l, leaf) })
	return &clash{append(leaves, leaf)}
}

// del removes the leaf that is the same as like; nil when it was the last.
func (h *hamt) del(k keying, hash uint64, like any) *hamt {
	return h.delAt(k, hash, 0, like)
}

func (h *hamt) delAt(k keying, hash uint64, shift int, like any) *hamt {
	if h == nil {
		return nil
	}
	bit := uint32(1) << (hash >> shift & fanMask)
	if h.bits&bit == 0 {
		return h
	}
	i := bits.OnesCount32(h.bits & (bit - 1))
	var slot any
	switch s := h.slots[i].(type) {
	case *hamt:
		sub := s.delAt(k, hash, shift+fanBits, like)
		if sub == s {
			return h
		}
		slot = sub
		if sub == nil {
			slot = nil
		} else if len(sub.slots) == 1 {
			switch last := sub.slots[0].(type) {
			case *hamt, *clash: // they belong to their depth
			default:
				slot = last
			}
		}
	case *clash:
		leaves := slices.DeleteFunc(slices.Clone(s.leaves), func(l any) bool { return k.same(l, like) })
		if len(leaves) == 1 {
			slot = leaves[0]
		} else {
			slot = &clash{leaves}
		}
	default:
		if !k.same(s, like) {
			return h
		}
	}
	if slot != nil {
		return h.with(i, slot, false)
	}
	if len(h.slots) == 1 {
		return nil
	}
	slots := make([]any, len(h.slots)-1)
	copy(slots, h.slots[:i])
	copy(slots[i:], h.slots[i+1:])
	return &hamt{h.bits &^ bit, slots}
}

// each calls f with every leaf.
func (h *hamt) each(f func(leaf any)) {
	if h == nil {
		return
	}
	for _, s := range h.slots {
		switch s := s.(type) {
		case *hamt:
			s.each(f)
		case *clash:
			for _, leaf := range s.leaves {
				f(leaf)
			}
		default:
			f(s)
		}
	}
}
