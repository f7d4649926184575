package routing

import (
	"math/bits"
	"math/rand/v2"
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
	to     []string   // the queues that the bindings lead to; "" for an exchange
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

// With more bindings, nodes or bytes of words than these, the numbers might not
// fit.
const (
	maxFlat = 1<<26 - 256
	maxText = 1<<31 - 1<<16
)

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
			if token = f.tokens.find(head, wordHash(head)); token == tokenNone {
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

// number finds the numbers of a key's words, and ends them with tokenEnd.
func (w *walk) number(f *flat, key string) {
	tokens := w.tokens[:0]
	for more := key != ""; more; {
		n, hash := scan(key)
		tokens = append(tokens, f.tokens.find(key[:n], hash))
		if more = n < len(key); more {
			key = key[n+1:]
		}
	}
	w.tokens = append(tokens, tokenEnd)
}

// flatMatch takes what matches the words from i on below at.
func (w *walk) flatMatch(f *flat, d *dead, at ref, i int) {
	switch at & refKind {
	case refSmall:
		w.flatSmall(f, d, at, i)
	case refBig:
		w.flatBig(f, d, at, i)
	default:
		if w.tokens[i] == tokenEnd {
			w.takeSpan(f, d, at)
		}
	}
}

func (w *walk) flatSmall(f *flat, d *dead, at ref, i int) {
	word := w.tokens[i]
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
	word := w.tokens[i]
	if word == tokenEnd {
		if at&hasEnd != 0 {
			w.takeSpan(f, d, f.child(node, tokenEnd))
		}
		return
	}
	if at&hasStar != 0 {
		w.flatMatch(f, d, f.child(node, tokenStar), i+1)
	}
	if at&hasKids != 0 && word != tokenNone {
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
	for ; i < len(w.tokens); i++ {
		w.flatMatch(f, d, at, i)
	}
}

func (w *walk) takeSpan(f *flat, d *dead, at ref) {
	start, n := f.span(at)
	for i := start; i < start+n; i++ {
		if d.count > 0 && d.has(i) {
			continue
		}
		if name := f.to[i]; name != "" {
			w.taken = true
			w.add(name)
		} else {
			w.take(f.all[i])
		}
	}
}
