package routing

import (
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
)

// A flat is a trie of topic bindings in a few arrays without pointers but to
// what a match ends in: small, and a step of a match is one cache line. What
// stands below one prefix lies together. It is never changed; dead marks what
// was removed since it was built.
type flat struct {
	tokens dictionary
	small  []branch // the branches of each small node, the last one marked
	big    []edge   // those of big ones: open addressing; a slot with child 0 is empty
	root   ref
	to     []*place   // where the bindings lead
	all    []*binding // the same bindings
	runs   []run
}

// A branch leads from a small node along a token.
type branch struct {
	token uint32
	child ref
}

// An edge leads from a big node along a token.
type edge struct {
	node, token uint32
	child       ref
}

// A run is the bindings whose keys are the same, by their positions.
type run struct{ start, n uint32 }

// A ref is what a branch or edge leads to. Its two upper bits say of what kind
// the others are the number. Nothing is 0.
type ref uint32

const (
	refSmall ref = 0 << 30 // a node, by its first branch
	refBig   ref = 1 << 30 // a node, below four bits that say what leads on
	refOne   ref = 2 << 30 // a binding, by its position
	refRun   ref = 3 << 30 // a run, by its index
	refKind  ref = 3 << 30

	hasTail ref = 1 << 29
	hasStar ref = 1 << 28
	hasKids ref = 1 << 27 // literals
	hasEnd  ref = 1 << 26
	bigNode ref = 1<<26 - 1
)

// isEnd says that at is bindings and no node.
func (at ref) isEnd() bool { return at >= refOne }

// A node with more branches than fit a cache line is big.
const maxSmall = 8

// Tokens that are no words.
const (
	tokenNone uint32 = iota
	tokenStar
	tokenTail
	tokenEnd // to the bindings whose key ends at the node
	firstWord
	lastBranch = 1 << 31 // marks a branch
)

// More than so many bindings might not fit the numbers.
const maxFlat = 1 << 26

// Keys must not be able to choose where they are filed.
var edgeSeed = rand.Uint64() | 1

func edgeSlot(node, token uint32, n int) int {
	h := (uint64(node)<<32 | uint64(token)) * edgeSeed
	h = (h ^ h>>32) * 0x9e3779b97f4a7c15
	at, _ := bits.Mul64(h, uint64(n))
	return int(at)
}

// child is what a big node leads to along a token.
func (f *flat) child(node, token uint32) ref {
	for i := edgeSlot(node, token, len(f.big)); ; i++ {
		if i == len(f.big) {
			i = 0
		}
		e := &f.big[i]
		if e.node == node && e.token == token || e.child == 0 {
			return e.child
		}
	}
}

// step is what any node leads to along a token.
func (f *flat) step(at ref, token uint32) ref {
	if at&refKind == refBig {
		return f.child(uint32(at&bigNode), token)
	}
	for i := at; ; i++ {
		b := f.small[i]
		if b.token&^lastBranch == token {
			return b.child
		}
		if b.token&lastBranch != 0 {
			return 0
		}
	}
}

// newFlat compiles bindings; nil where they are too many.
func newFlat(bs []*binding) *flat {
	var s sprout
	s.nodes = append(s.nodes, sproutNode{}, sproutNode{}) // 0 is nothing, 1 the root
	ends := make([]uint32, len(bs))
	for i, b := range bs {
		ends[i] = s.grow(b.key)
	}
	if len(bs) > maxFlat || len(s.nodes) > maxFlat {
		return nil
	}
	l := layout{flat: &flat{tokens: s.tokens.packed()}, nodes: s.nodes}
	l.group(s.edges, s.count)
	l.flat.root = l.ref(1)
	f := l.flat
	f.to, f.all = make([]*place, len(bs)), make([]*binding, len(bs))
	for i, b := range bs {
		n := &l.nodes[ends[i]]
		f.to[n.start], f.all[n.start] = b.to, b
		n.start++
	}
	return f
}

// A layout gives the nodes of a sprout their places in a flat, depth first.
type layout struct {
	*flat
	nodes    []sproutNode
	branches []branch // node by node; child is the number of a node
	first    []uint32 // where those of a node begin, and of the next
	bindings uint32   // that have their position
	bigs     ref
}

// group brings the edges of each node together and makes room for them.
func (l *layout) group(edges []edge, count int) {
	l.first = make([]uint32, len(l.nodes)+1)
	for _, e := range edges {
		if e.child != 0 {
			l.first[e.node+1]++
		}
	}
	small, big := 1, 0
	for i := range l.nodes {
		switch n := l.degree(uint32(i), l.first[i+1]); {
		case n > maxSmall:
			big += n
		case l.first[i+1] > 0:
			small += n
		}
		l.first[i+1] += l.first[i]
	}
	l.branches = make([]branch, count)
	next := slices.Clone(l.first)
	for _, e := range edges {
		if e.child != 0 {
			l.branches[next[e.node]] = branch{e.token, e.child}
			next[e.node]++
		}
	}
	l.small = make([]branch, 1, small) // a number of 0 would be nothing
	// At a load of two thirds: many lookups are of edges that are not there,
	// and take the longer the fuller it is.
	l.big = make([]edge, big*3/2+8)
}

// degree is how many branches a node has that leads to so many others.
func (l *layout) degree(node, others uint32) int {
	if l.nodes[node].here > 0 {
		others++
	}
	return int(others)
}

// ref lays out a node and all below it.
func (l *layout) ref(node uint32) ref {
	n := &l.nodes[node]
	out := l.branches[l.first[node]:l.first[node+1]]
	if len(out) == 0 {
		return l.ends(n)
	}
	if l.degree(node, uint32(len(out))) <= maxSmall {
		start := len(l.small)
		if n.here > 0 {
			l.small = append(l.small, branch{tokenEnd, l.ends(n)})
		}
		at := len(l.small)
		l.small = append(l.small, out...)
		for i, b := range out {
			l.small[at+i].child = l.ref(uint32(b.child))
		}
		l.small[at+len(out)-1].token |= lastBranch
		return refSmall | ref(start)
	}
	l.bigs++
	number, has := uint32(l.bigs), ref(0)
	if n.here > 0 {
		l.put(number, tokenEnd, l.ends(n))
		has |= hasEnd
	}
	for _, b := range out {
		switch b.token {
		case tokenStar:
			has |= hasStar
		case tokenTail:
			has |= hasTail
		default:
			has |= hasKids
		}
		l.put(number, b.token, l.ref(uint32(b.child)))
	}
	return refBig | has | ref(number)
}

func (f *flat) put(node, token uint32, child ref) {
	i := edgeSlot(node, token, len(f.big))
	for f.big[i].child != 0 {
		if i++; i == len(f.big) {
			i = 0
		}
	}
	f.big[i] = edge{node, token, child}
}

// ends gives the bindings whose key ends at n their positions.
func (l *layout) ends(n *sproutNode) ref {
	n.start = l.bindings
	l.bindings += n.here
	if n.here == 1 {
		return refOne | ref(n.start)
	}
	l.runs = append(l.runs, run{n.start, n.here})
	return refRun | ref(len(l.runs)-1)
}

// A sprout is a flat in the making: every prefix of a key is a node.
type sprout struct {
	tokens dictionary
	edges  []edge // child is the number of a node; at least half are empty
	count  int
	nodes  []sproutNode
}

// A sproutNode counts the bindings whose key ends there, and knows the
// position of the next of them.
type sproutNode struct{ here, start uint32 }

// grow adds a key and returns the node where it ends.
func (s *sprout) grow(key string) uint32 {
	node := uint32(1)
	for more := key != ""; more; {
		var head string
		head, key, more = strings.Cut(key, ".")
		token := tokenStar
		switch head {
		case "*":
		case "#":
			token = tokenTail
		default:
			token = s.tokens.add(head)
		}
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
		if at.isEnd() {
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
		if at = f.step(at, token); at == 0 {
			return -1
		}
	}
	if !at.isEnd() {
		if at = f.step(at, tokenEnd); at == 0 {
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
	switch at & refKind {
	case refSmall:
		w.flatSmall(f, d, at, i)
	case refBig:
		w.flatBig(f, d, at, i)
	default:
		if i == len(w.tokens) {
			w.takeSpan(f, d, at)
		}
	}
}

func (w *walk) flatSmall(f *flat, d *dead, at ref, i int) {
	word := tokenEnd
	if i < len(w.tokens) {
		word = w.tokens[i]
	}
	for ; ; at++ {
		b := f.small[at]
		switch b.token &^ lastBranch {
		case tokenTail:
			w.flatTail(f, d, b.child, i)
		case tokenStar:
			if word != tokenEnd {
				w.flatMatch(f, d, b.child, i+1)
			}
		case word:
			if word == tokenEnd {
				w.takeSpan(f, d, b.child)
			} else {
				w.flatMatch(f, d, b.child, i+1)
			}
		}
		if b.token&lastBranch != 0 {
			return
		}
	}
}

func (w *walk) flatBig(f *flat, d *dead, at ref, i int) {
	node := uint32(at & bigNode)
	if at&hasTail != 0 {
		w.flatTail(f, d, f.child(node, tokenTail), i)
	}
	if i == len(w.tokens) {
		if at&hasEnd != 0 {
			w.takeSpan(f, d, f.child(node, tokenEnd))
		}
		return
	}
	if at&hasStar != 0 {
		w.flatMatch(f, d, f.child(node, tokenStar), i+1)
	}
	if word := w.tokens[i]; at&hasKids != 0 && word != tokenNone {
		if next := f.child(node, word); next != 0 {
			w.flatMatch(f, d, next, i+1)
		}
	}
}

// flatTail goes on below a # that stands for none to all of the words from i on.
func (w *walk) flatTail(f *flat, d *dead, at ref, i int) {
	if at.isEnd() {
		w.takeSpan(f, d, at)
		return
	}
	for ; i <= len(w.tokens); i++ {
		w.flatMatch(f, d, at, i)
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
