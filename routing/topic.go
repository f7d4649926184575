package routing

import "strings"

// topicIndex is a large part that is not changed and a small one that is. When
// the changes have grown to a fixed share, all is compiled again, so that a
// change costs little on average and a match sees two parts at most.
type topicIndex struct {
	flat  *flat // nil: none yet
	dead  dead  // what of it was removed since
	root  any   // slot of a trie of what was added since
	added int
	raw   []*binding // what was added since it was sealed: not compiled at all yet
}

// A change is compiled in when the changes are this many, and a share of the whole.
const (
	manyChanges = 256
	changeShare = 16
)

func (x *topicIndex) with(b *binding, _ bool) index {
	c := *x
	c.raw = append(c.raw, b)
	return &c
}

func (x *topicIndex) without(b *binding) index {
	c := *x
	if c.flat != nil {
		if i := c.flat.position(b); i >= 0 {
			c.dead = c.dead.with(uint32(i), len(c.flat.all))
			return &c
		}
	}
	c.root = slotDel(c.root, b, 0)
	c.added--
	return &c
}

// sealed compiles all again when the time has come, once whatever the number of
// changes since it was sealed last.
func (x *topicIndex) sealed() index {
	whole := 0
	if x.flat != nil {
		whole = len(x.flat.all)
	}
	if x.added+x.dead.count+len(x.raw) > manyChanges+whole/changeShare {
		all := make([]*binding, 0, whole-x.dead.count+x.added+len(x.raw))
		x.each(func(b *binding) { all = append(all, b) })
		if f := newFlat(all); f != nil {
			return &topicIndex{flat: f}
		}
	}
	c := *x
	c.raw = nil
	for _, b := range x.raw {
		c.root = slotPut(c.root, b, 0, "")
		c.added++
	}
	return &c
}

func (x *topicIndex) each(f func(*binding)) {
	if x.flat != nil {
		for i, b := range x.flat.all {
			if x.dead.count == 0 || !x.dead.has(uint32(i)) {
				f(b)
			}
		}
	}
	slotEach(x.root, f)
	for _, b := range x.raw {
		f(b)
	}
}

func (x *topicIndex) match(w *walk) {
	for _, key := range w.keys {
		if x.flat != nil {
			w.number(x.flat, key)
			w.flatMatch(x.flat, &x.dead, x.flat.root, 0)
		}
		if x.root != nil {
			w.words = split(w.words[:0], key)
			w.slot(x.root, 0)
		}
	}
}

// A word of a routing key.
type word struct {
	text string
	hash uint64
}

// split appends the words of a routing key.
func split(words []word, key string) []word {
	if key == "" {
		return words
	}
	for {
		i := strings.IndexByte(key, '.')
		if i < 0 {
			return append(words, word{key, hashOf(key)})
		}
		words = append(words, word{key[:i], hashOf(key[:i])})
		key = key[i+1:]
	}
}
