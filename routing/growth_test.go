package routing

import (
	"fmt"
	"runtime"
	"testing"
)

// What a binding costs to add or remove must not grow with how many come at once,
// but as the tries get deeper. Memory is counted, as it tells without a clock what
// is made again and again.
func TestLargeChanges(t *testing.T) {
	costs := map[string][2]float64{}
	for at, n := range []int{2_000, 20_000} {
		for _, kind := range []Kind{Direct, Topic, Fanout, Headers} {
			ends := Topology{Exchanges: []Exchange{{Name: "x", Kind: kind}}}
			var bindings Topology
			for i := range n {
				if i%10 == 0 {
					ends.Queues = append(ends.Queues, Queue{Name: fmt.Sprint("q", i/10)})
				}
				bindings.Bindings = append(bindings.Bindings, Binding{Exchange: "x", Queue: fmt.Sprint("q", i/10), Key: fmt.Sprintf("s%d.t%d.*.e", i%10, i)})
			}
			table := mustTable(t, ends)
			change := func(what string, add, remove Topology) *Table {
				t.Helper()
				var next *Table
				each := float64(bytesOf(func() {
					var err error
					if next, err = table.Apply(add, remove); err != nil {
						t.Fatal(err)
					}
				})) / float64(n)
				what = string(kind) + ", " + what
				c := costs[what]
				c[at] = each
				costs[what] = c
				return next
			}
			table = change("add", bindings, Topology{})
			change("remove the bindings", Topology{}, bindings)
			change("remove the exchange", Topology{}, Topology{Exchanges: ends.Exchanges})
		}
	}
	for what, c := range costs {
		t.Logf("%s: %.0f bytes a binding of 2,000, %.0f of 20,000", what, c[0], c[1])
		if c[1] > 1.6*c[0] {
			t.Errorf("%s: %.0f bytes a binding of 2,000, but %.0f of 20,000", what, c[0], c[1])
		}
	}
}

// bytesOf is how much memory f asks for.
func bytesOf(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}
