package routing

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// What RabbitMQ matches, pattern by pattern.
func TestTopicWords(t *testing.T) {
	patterns := []string{"#", "*", "", "a", "a.*", "a.#", "#.b", "a.#.b", "*.*", "#.#", "a..b", "a.*.b", "*.#", "#.*", "a.", ".a", "a*", "a.#.#"}
	want := map[string][]string{
		"":     {"#", "", "#.#"},
		"a":    {"#", "*", "a", "a.#", "#.#", "*.#", "#.*", "a.#.#"},
		"a.b":  {"#", "a.*", "a.#", "#.b", "a.#.b", "*.*", "#.#", "*.#", "#.*", "a.#.#"},
		"a..b": {"#", "a.#", "#.b", "a.#.b", "#.#", "a..b", "a.*.b", "*.#", "#.*", "a.#.#"},
		".":    {"#", "*.*", "#.#", "*.#", "#.*"},
		"a.":   {"#", "a.*", "a.#", "*.*", "#.#", "*.#", "#.*", "a.", "a.#.#"},
		".a":   {"#", "*.*", "#.#", "*.#", "#.*", ".a"},
		"..":   {"#", "#.#", "*.#", "#.*"},
		"A":    {"#", "*", "#.#", "*.#", "#.*"},
		"*":    {"#", "*", "#.#", "*.#", "#.*"},
		"a.#":  {"#", "a.*", "a.#", "*.*", "#.#", "*.#", "#.*", "a.#.#"},
		"a*":   {"#", "*", "#.#", "*.#", "#.*", "a*"},
	}
	for key, want := range want {
		slices.Sort(want)
		for how, got := range matchBoth(t, patterns, key) {
			if !slices.Equal(got, want) {
				t.Errorf("%s: key %q matches %q: want %q", how, key, got, want)
			}
		}
	}
}

// matchBoth returns the patterns that match key, sorted, by the trie of
// changes and by the flat one.
func matchBoth(t testing.TB, patterns []string, key string) map[string][]string {
	var bs []*binding
	from := newVia(newPlace("x", true), nil)
	for _, p := range patterns {
		bs = append(bs, &binding{p, newPlace("to "+p, false), from})
	}
	var trie topicIndex
	for _, b := range bs {
		trie.root = slotPut(trie.root, b, 0, "")
	}
	got := map[string][]string{}
	for how, x := range map[string]*topicIndex{"trie": &trie, "flat": {flat: newFlat(bs)}} {
		w := &walk{keys: []string{key}}
		x.match(w)
		var found []string
		for _, name := range w.out {
			found = append(found, strings.TrimPrefix(name, "to "))
		}
		slices.Sort(found)
		got[how] = found
	}
	return got
}

// Any patterns and any key, against a matcher that spells the rules out.
func FuzzTopic(f *testing.F) {
	f.Add("a.*.#|#|*", "a.b")
	f.Add("#.a.#|a..b||.", "..")
	f.Add("*.*.c|a.#.c.#|a*|#.#", "a.b.c")
	f.Fuzz(func(t *testing.T, list, key string) {
		var patterns []string
		for p := range strings.SplitSeq(list, "|") {
			if len(p) <= 255 && !slices.Contains(patterns, p) && (Binding{Key: p}).checkKind(Topic) == nil {
				patterns = append(patterns, p)
			}
		}
		if len(key) > 255 || len(patterns) > 64 {
			return
		}
		var want []string
		for _, p := range patterns {
			if naiveTopic(p, key) {
				want = append(want, p)
			}
		}
		slices.Sort(want)
		for how, got := range matchBoth(t, patterns, key) {
			if !slices.Equal(got, want) {
				t.Errorf("%s: key %q matches %q of %q: want %q", how, key, got, patterns, want)
			}
		}
	})
}

// A table large enough to be compiled flat, changed until it is compiled again
// and again, agrees at every stage with one made at once.
func TestTopicGrowth(t *testing.T) {
	key := func(i int) string {
		switch i % 5 {
		case 0:
			return fmt.Sprintf("s%d.*.e%d", i%7, i%11)
		case 1:
			return fmt.Sprintf("s%d.t%d.#", i%7, i%97)
		case 2:
			return fmt.Sprintf("s%d.t%d.e%d", i%7, i%97, i%11)
		case 3:
			return fmt.Sprintf("#.e%d", i%11)
		}
		return fmt.Sprintf("*.t%d", i%97)
	}
	const n = 3000
	top := Topology{Exchanges: []Exchange{{Name: "x", Kind: Topic}}}
	for i := range n {
		if i%3 == 0 {
			top.Queues = append(top.Queues, Queue{Name: fmt.Sprint("q", i/3)})
		}
		top.Bindings = append(top.Bindings, Binding{Exchange: "x", Queue: fmt.Sprint("q", i/3), Key: key(i)})
	}
	whole, err := NewTable(top)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{"", "s1.t1", "s1.t1.e1", "s2.t2.e2", "s3.t90.e9", "s0.t0", "t5", "a.t5", "x.y.e3", "s6.t6.x.y.e6"}
	compare := func(stage string, got *Table, want Topology) {
		t.Helper()
		for _, key := range keys {
			queues, err := got.Route(nil, "x", key, nil)
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(queues)
			expected, _ := naive(want).route("x", []string{key}, nil)
			if !slices.Equal(queues, expected) {
				t.Fatalf("%s: key %q: %d queues, want %d", stage, key, len(queues), len(expected))
			}
		}
	}
	compare("made at once", whole, top)
	table, err := NewTable(Topology{Exchanges: top.Exchanges, Queues: top.Queues})
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range top.Bindings {
		if table, err = table.Apply(Topology{Bindings: []Binding{b}}, Topology{}); err != nil {
			t.Fatal(err)
		}
		if i%611 == 0 {
			compare(fmt.Sprint("after ", i+1), table, Topology{Exchanges: top.Exchanges, Queues: top.Queues, Bindings: top.Bindings[:i+1]})
		}
	}
	compare("grown", table, top)
	if _, ok := table.exchange("x").out.(*topicIndex); !ok || table.exchange("x").out.(*topicIndex).flat == nil {
		t.Fatal("the bindings were never compiled: the test does not test what it says")
	}
	for _, from := range []*Table{whole, table} {
		left := top
		for i := range 900 {
			gone := left.Queues[0]
			left.Queues = left.Queues[1:]
			left.Bindings = slices.DeleteFunc(slices.Clone(left.Bindings), func(b Binding) bool { return b.Queue == gone.Name })
			if from, err = from.Apply(Topology{}, Topology{Queues: []Queue{gone}}); err != nil {
				t.Fatal(err)
			}
			if i%101 == 0 {
				compare(fmt.Sprint("without ", i+1, " queues"), from, left)
			}
		}
		compare("shrunk", from, left)
		if got := len(slices.Collect(from.BindingsFrom("x"))); got != len(left.Bindings) {
			t.Errorf("%d bindings lead from x: want %d", got, len(left.Bindings))
		}
		var none Topology
		if from, err = from.Apply(top, Topology{Exchanges: top.Exchanges}); err != nil {
			t.Fatal(err)
		}
		compare("put back", from, top)
		if from, err = from.Apply(none, Topology{Exchanges: top.Exchanges}); err != nil {
			t.Fatal(err)
		}
		if left := from.Topology(); len(left.Bindings) != 0 || len(left.Exchanges) != 0 || len(left.Queues) != len(top.Queues) {
			t.Errorf("without its exchange %d bindings are left", len(left.Bindings))
		}
	}
	compare("the first table, after all this", whole, top)
}
