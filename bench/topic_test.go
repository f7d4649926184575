package bench

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/polymq/polymq/bench/topics"
	"github.com/polymq/polymq/routing"
)

var sizes = []int{1_000, 100_000, 1_000_000}

// What is measured does the same work: topic by topic, the queues of a table
// are those of gsl's values.
func TestSameMatches(t *testing.T) {
	keys, subjects := topics.Load(20_000)
	table, _, err := topics.BuildTable(keys)
	if err != nil {
		t.Fatal(err)
	}
	list, _, err := topics.BuildGSL(keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, topic := range subjects[:2000] {
		var want []string
		list.Match(topic, func(i int32) { want = append(want, topics.Queue(int(i))) })
		slices.Sort(want)
		want = slices.Compact(want)
		got, err := table.Route(nil, topics.Exchange, topic, nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: polymq %q, gsl %q", topic, got, want)
		}
	}
}

func build(b *testing.B, n int) *routing.Table {
	b.Helper()
	keys, _ := topics.Load(n)
	table, _, err := topics.BuildTable(keys)
	if err != nil {
		b.Fatal(err)
	}
	return table
}

// BenchmarkApply adds one binding to a table of n, and takes it out again: two
// tables an op. gsl has no like: it changes in place, under its lock.
func BenchmarkApply(b *testing.B) {
	one := routing.Topology{Bindings: []routing.Binding{{Exchange: topics.Exchange, Queue: topics.Queue(0), Key: "service00.tenant000000.*.event99"}}}
	for _, n := range sizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			table := build(b, n)
			b.ReportAllocs()
			for b.Loop() {
				with, err := table.Apply(one, routing.Topology{})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := with.Apply(routing.Topology{}, one); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkGrow adds one binding after the other to a table that begins with n:
// the average with the compilation that now and then falls due, and the longest
// single Apply.
func BenchmarkGrow(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			table := build(b, n)
			var longest time.Duration
			i := 0
			for b.Loop() {
				start := time.Now()
				next, err := table.Apply(routing.Topology{Bindings: []routing.Binding{{
					Exchange: topics.Exchange, Queue: topics.Queue(i % n), Key: fmt.Sprintf("service00.grown%d.*.event00", i),
				}}}, routing.Topology{})
				if err != nil {
					b.Fatal(err)
				}
				table, longest = next, max(longest, time.Since(start))
				i++
			}
			b.ReportMetric(float64(longest.Milliseconds()), "longest-ms")
		})
	}
}
