package routing

import (
	"fmt"
	"testing"
)

// benchTopology has one exchange of every kind with n bindings to n/10 queues.
func benchTopology(n int) (t Topology) {
	t.Exchanges = []Exchange{{Name: "d", Kind: Direct}, {Name: "t", Kind: Topic}, {Name: "h", Kind: Headers}, {Name: "f", Kind: Fanout}}
	for i := range n {
		if i%10 == 0 {
			t.Queues = append(t.Queues, Queue{Name: fmt.Sprint("q", i/10)})
		}
		q := t.Queues[i/10].Name
		t.Bindings = append(t.Bindings,
			Binding{Exchange: "d", Queue: q, Key: fmt.Sprint("key", i)},
			Binding{Exchange: "t", Queue: q, Key: fmt.Sprintf("s%d.t%d.*.e", i%10, i)},
		)
		if i%100 == 0 {
			t.Bindings = append(t.Bindings, Binding{Exchange: "h", Queue: q, Args: map[string]any{"h": i}}, Binding{Exchange: "f", Queue: q})
		}
	}
	return t
}

var benchMessages = []struct {
	kind, exchange, key string
	header              map[string]any
}{
	{"default", "", "q1", nil},
	{"direct", "d", "key7", nil},
	{"topic", "t", "s7.t7.x.e", nil},
	{"headers", "h", "", map[string]any{"h": int64(100), "other": "x"}},
	{"fanout", "f", "", nil},
	{"none", "d", "no such key", nil},
}

func BenchmarkRoute(b *testing.B) {
	table := mustTable(b, benchTopology(1000))
	for _, m := range benchMessages {
		b.Run(m.kind, func(b *testing.B) {
			dst := make([]string, 0, 64)
			b.ReportAllocs()
			for b.Loop() {
				dst, _ = table.Route(dst[:0], m.exchange, m.key, m.header)
			}
		})
	}
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table := mustTable(b, benchTopology(n))
			one := Topology{Bindings: []Binding{{Exchange: "t", Queue: "q0", Key: "one.more"}}}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Apply(one, Topology{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
