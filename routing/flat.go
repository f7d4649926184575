package routing

import (
	"math/bits"
	"math/rand/v2"
	"strings"
)

// A flat is a trie of topic bindings in a few arrays without pointers but to
// what a match ends in: small, and a step of a match is one cache line. It is
// never changed; dead marks what was removed since it was built.
type flat struct {
	tokens dictionary
	edges  []edge // open addressing; a slot with child 0 is empty
	root   ref
	to     []*place   // where the bindings lead, those of one node together
	all    []*binding // the same bindings
	runs   []run
}

// An edge leads from a node along a token.
type edge struct {
	node, token uint32
	child       ref
}

// A ref is what an edge leads to. In its two upper bits: a node, whose next
// bits say what edges lead on and the others its number; one binding, by its
// position; or a run of them, by its index. Nothing is 0.
type ref uint32

const (
	refOne  ref = 2 << 30
	refRun  ref = 3 << 30
	refKind ref = 3 << 30
	hasTail ref = 1 << 29
	hasStar ref = 1 << 28
	hasKids ref = 1 << 27 // literals
	hasEnd  ref = 1 << 26
	maxNode     = 1<<26 - 1
)

// Tokens that are no words.
const (
	tokenNone uint32 = iota
	tokenStar
	tokenTail
	tokenEnd // to the bindings whose key ends at the node
	firstWord
)

type run struct{ start, n uint32 }

// Keys must not be able to choose where they are filed.
var edgeSeed = rand.Uint64() | 1

func edgeSlot(node, token uint32, n int) int {
	h := (uint64(node)<<32 | uint64(token)) * edgeSeed
	h = (h ^ h>>32) * 0x9e3779b97f4a7c15
	at, _ := bits.Mul64(h, uint64(n))
	return int(at)
}

func (f *flat) child(node, token uint32) ref {
	for i := edgeSlot(node, token, len(f.edges)); ; i++ {
		if i == len(f.edges) {
			i = 0
		}
		e := &f.edges[i]
		if e.node == node && e.token == token || e.child == 0 {
			return e.child
		}
	}
}

// newFlat compiles bindings, nil where they are too many for its numbers.
func newFlat(bs []*binding) *flat {
	var s sprout
	s.nodes = append(s.nodes, sproutNode{}, sproutNode{}) // 0 is nothing, 1 the root
	ends := make([]uint32, len(bs))
	for i, b := range bs {
		ends[i] = s.grow(b.key)
	}
	if len(s.nodes) > maxNode {
		return nil
	}
	// The bindings, node by node.
	f := &flat{tokens: s.tokens.packed(), to: make([]*place, len(bs)), all: make([]*binding, len(bs))}
	at, more := uint32(0), 0
	for i := range s.nodes {
		n := &s.nodes[i]
		n.start, at = at, at+n.here
		if n.here > 0 && n.has != 0 {
			n.has |= hasEnd
			more++
		}
	}
	next := make([]uint32, len(s.nodes))
	for i, b := range bs {
		n := ends[i]
		pos := s.nodes[n].start + next[n]
		next[n]++
		f.to[pos], f.all[pos] = b.to, b
	}
	// The edges, at a load of four fifths.
	f.edges = make([]edge, (s.count+more)*5/4+8)
	for _, e := range s.edges {
		if e.child != 0 {
			f.put(e.node, e.token, f.ref(&s.nodes[e.child], uint32(e.child)))
		}
	}
	for i := range s.nodes {
		if n := &s.nodes[i]; n.has&hasEnd != 0 {
			f.put(uint32(i), tokenEnd, f.bindings(n))
		}
	}
	f.root = f.ref(&s.nodes[1], 1)
	return f
}

func (f *flat) put(node, token uint32, child ref) {
	i := edgeSlot(node, token, len(f.edges))
	for f.edges[i].child != 0 {
		if i++; i == len(f.edges) {
			i = 0
		}
	}
	f.edges[i] = edge{node, token, child}
}

func (f *flat) ref(n *sproutNode, number uint32) ref {
	if n.has == 0 {
		return f.bindings(n)
	}
	return n.has | ref(number)
}

func (f *flat) bindings(n *sproutNode) ref {
	if n.here == 1 {
		return refOne | ref(n.start)
	}
	f.runs = append(f.runs, run{n.start, n.here})
	return refRun | ref(len(f.runs)-1)
}

// A sprout is a flat in the making: every prefix of a key is a node.
type sprout struct {
	tokens dictionary
	edges  []edge // child is the number of a node; at least half are empty
	count  int
	nodes  []sproutNode
}

type sproutNode struct {
	has         ref
	here, start uint32
}

// grow adds a key and returns the node where it ends.
func (s *sprout) grow(key string) uint32 {
	node := uint32(1)
	for more := key != ""; more; {
		var head string
		head, key, more = strings.Cut(key, ".")
		token, has := tokenStar, hasStar
		switch head {
		case "*":
		case "#":
			token, has = tokenTail, hasTail
		default:
			token, has = s.tokens.add(head), hasKids
		}
		s.nodes[node].has |= has
		node = s.step(node, token)
	}
	s.nodes[node].here++
	return node
}

func (s *sprout) step(node, token uint32) uint32 {
	if 2*s.count >= len(s.edges) {
		old := s.edges
		s.edges = make([]edge, max(64, 2*len(old)))
		for _, e := range old {
			if e.child != 0 {
				s.edges[s.slot(e.node, e.token)] = e
			}
		}
	}
	e := &s.edges[s.slot(node, token)]
	if e.child == 0 {
		*e = edge{node, token, ref(len(s.nodes))}
		s.nodes = append(s.nodes, sproutNode{})
		s.count++
	}
	return uint32(e.child)
}

func (s *sprout) slot(node, token uint32) int {
	i := edgeSlot(node, token, len(s.edges))
	for e := &s.edges[i]; e.child != 0 && (e.node != node || e.token != token); e = &s.edges[i] {
		if i++; i == len(s.edges) {
			i = 0
		}
	}
	return i
}

// A dictionary numbers the words of keys, from firstWord on.
type dictionary struct {
	slots []entry // open addressing, a power of two of them; token 0 is empty
	words []string
}

type entry struct{ tag, token uint32 }

func (d *dictionary) find(word string, hash uint64) uint32 {
	mask := uint64(len(d.slots) - 1)
	tag := uint32(hash >> 32)
	for i := hash & mask; len(d.slots) > 0; i = (i + 1) & mask {
		e := &d.slots[i]
		if e.token == 0 {
			return tokenNone
		}
		if e.tag == tag && d.words[e.token-firstWord] == word {
			return e.token
		}
	}
	return tokenNone
}

func (d *dictionary) add(word string) uint32 {
	h := hashOf(word)
	if token := d.find(word, h); token != tokenNone {
		return token
	}
	if 2*len(d.words) >= len(d.slots) {
		d.slots = make([]entry, max(64, 2*len(d.slots)))
		for i, w := range d.words {
			d.file(hashOf(w), firstWord+uint32(i))
		}
	}
	token := firstWord + uint32(len(d.words))
	d.words = append(d.words, word)
	d.file(h, token)
	return token
}

func (d *dictionary) file(hash uint64, token uint32) {
	mask := uint64(len(d.slots) - 1)
	i := hash & mask
	for d.slots[i].token != 0 {
		i = (i + 1) & mask
	}
	d.slots[i] = entry{uint32(hash >> 32), token}
}

// packed is the dictionary with all its words in one string, near each other.
func (d *dictionary) packed() dictionary {
	text := strings.Join(d.words, "")
	words := make([]string, len(d.words))
	for i, w := range d.words {
		words[i], text = text[:len(w)], text[len(w):]
	}
	return dictionary{d.slots, words}
}

// position is where in f.all b is, -1 where it is not.
func (f *flat) position(b *binding) int {
	at, key := f.root, b.key
	for more := key != ""; more; {
		if at&refKind != 0 {
			return -1
		}
		var head string
		head, key, more = strings.Cut(key, ".")
		token := tokenStar
		switch head {
		case "*":
		case "#":
			token = tokenTail
		default:
			if token = f.tokens.find(head, hashOf(head)); token == tokenNone {
				return -1
			}
		}
		if at = f.child(uint32(at&maxNode), token); at == 0 {
			return -1
		}
	}
	if at&refKind == 0 {
		if at = f.child(uint32(at&maxNode), tokenEnd); at == 0 {
			return -1
		}
	}
	start, n := f.span(at)
	for i := start; i < start+n; i++ {
		if f.all[i] == b {
			return int(i)
		}
	}
	return -1
}

// span is the bindings of a ref that is no node.
func (f *flat) span(at ref) (start, n uint32) {
	if at&refKind == refOne {
		return uint32(at &^ refKind), 1
	}
	r := f.runs[at&^refKind]
	return r.start, r.n
}

// A dead set marks positions. It is persistent, in pages.
type dead struct {
	pages []*[64]uint64
	count int
}

func (d dead) has(i uint32) bool {
	p := d.pages[i>>12]
	return p != nil && p[i>>6&63]>>(i&63)&1 != 0
}

func (d dead) with(i uint32, of int) dead {
	pages := make([]*[64]uint64, of>>12+1)
	copy(pages, d.pages)
	var page [64]uint64
	if p := pages[i>>12]; p != nil {
		page = *p
	}
	page[i>>6&63] |= 1 << (i & 63)
	pages[i>>12] = &page
	return dead{pages, d.count + 1}
}

// flatMatch takes what matches the words from i on below at.
func (w *walk) flatMatch(f *flat, d *dead, at ref, i int) {
	if at&refKind != 0 {
		if i == len(w.words) {
			w.takeSpan(f, d, at)
		}
		return
	}
	node := uint32(at & maxNode)
	if at&hasTail != 0 {
		tail := f.child(node, tokenTail)
		if tail&refKind != 0 {
			w.takeSpan(f, d, tail)
		} else {
			for j := i; j <= len(w.words); j++ {
				w.flatMatch(f, d, tail, j)
			}
		}
	}
	if i == len(w.words) {
		if at&hasEnd != 0 {
			w.takeSpan(f, d, f.child(node, tokenEnd))
		}
		return
	}
	if at&hasStar != 0 {
		w.flatMatch(f, d, f.child(node, tokenStar), i+1)
	}
	if token := w.tokens[i]; at&hasKids != 0 && token != tokenNone {
		if next := f.child(node, token); next != 0 {
			w.flatMatch(f, d, next, i+1)
		}
	}
}

func (w *walk) takeSpan(f *flat, d *dead, at ref) {
	start, n := f.span(at)
	if d.count > 0 {
		for i := start; i < start+n; i++ {
			if !d.has(i) {
				w.takePlace(f.to[i])
			}
		}
		return
	}
	for _, p := range f.to[start : start+n] {
		w.takePlace(p)
	}
}
