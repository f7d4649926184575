package routing

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// poor files strings under few different hashes.
type poor struct{ different uint64 }

func (p poor) hash(leaf any) uint64 {
	return (hashOf(leaf.(string)) % p.different) * 0x9e3779b97f4a7c15
}
func (p poor) same(a, b any) bool { return a == b }

// However the hashes fall, a trie is a set, and the old one stays as it was.
func TestHamt(t *testing.T) {
	for _, k := range []poor{{1}, {3}, {40}, {1 << 60}} {
		rng := rand.New(rand.NewPCG(k.different, 0))
		var h, kept *hamt
		want, keptWant := map[string]bool{}, map[string]bool{}
		for i := range 4000 {
			s := fmt.Sprint(rng.IntN(150))
			if rng.IntN(2) == 0 {
				h = h.put(k, k.hash(s), s, false)
				want[s] = true
			} else {
				h = h.del(k, k.hash(s), s)
				delete(want, s)
			}
			if i == 2000 {
				kept = h
				for s := range want {
					keptWant[s] = true
				}
			}
		}
		for what, c := range map[string]struct {
			h    *hamt
			want map[string]bool
		}{"last": {h, want}, "kept": {kept, keptWant}} {
			n := 0
			c.h.each(func(any) { n++ })
			if n != len(c.want) {
				t.Errorf("%v, %s: %d leaves, want %d", k, what, n, len(c.want))
			}
			for i := range 150 {
				s := fmt.Sprint(i)
				if got := c.h.find(k, k.hash(s), s) != nil; got != c.want[s] {
					t.Errorf("%v, %s: %s found %v, want %v", k, what, s, got, c.want[s])
				}
			}
		}
		for s := range want {
			h = h.del(k, k.hash(s), s)
		}
		if h != nil {
			t.Errorf("%v: something is left when all is removed", k)
		}
	}
}

// Groups of every size, through all the forms they take.
func TestGroup(t *testing.T) {
	from := newVia(newPlace("x", true), nil)
	var bs []*binding
	for i := range 40 {
		bs = append(bs, &binding{fmt.Sprint(i), newPlace("q", false), from})
	}
	for _, own := range []bool{false, true} {
		var g group
		var steps []group
		for i, b := range bs {
			g = groupPut(g, b, own)
			steps = append(steps, g)
			for j, b := range bs {
				if got := groupFind(g, b) == b; got != (j <= i) {
					t.Fatalf("group of %d: %d found %v", i+1, j, got)
				}
			}
		}
		for i, b := range bs {
			g = groupDel(groupDel(g, b), b)
			n := 0
			groupEach(g, func(*binding) { n++ })
			if n != len(bs)-i-1 || groupFind(g, b) != nil {
				t.Fatalf("%d left after %d removals", n, i+1)
			}
		}
		if g != nil {
			t.Errorf("something is left when all is removed: %v", g)
		}
		for i, g := range steps {
			n := 0
			groupEach(g, func(*binding) { n++ })
			if !own && n != i+1 {
				t.Errorf("an old group changed: %d bindings, want %d", n, i+1)
			}
		}
	}
}
