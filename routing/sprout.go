package routing

import (
	"slices"
	"strings"
)

// newFlat compiles bindings; nil where they are too many.
func newFlat(bs []*binding) *flat {
	var s sprout
	s.nodes = append(s.nodes, sproutNode{}, sproutNode{}) // 0 is nothing, 1 the root
	ends := make([]uint32, len(bs))
	for i, b := range bs {
		if ends[i] = s.grow(b.key); len(s.nodes) > maxFlat || len(s.tokens.text) > maxText || i > maxFlat {
			return nil
		}
	}
	s.tokens.text = slices.Clone(s.tokens.text) // without its room to grow
	l := layout{flat: &flat{tokens: s.tokens}, nodes: s.nodes}
	l.group(s.edges, s.count)
	l.flat.root = l.ref(1)
	f := l.flat
	f.to, f.all = make([]string, len(bs)), make([]*binding, len(bs))
	for i, b := range bs {
		n := &l.nodes[ends[i]]
		if f.all[n.start] = b; !b.to.exchange {
			f.to[n.start] = b.to.name
		}
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
