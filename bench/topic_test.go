package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server/gsl"

	"github.com/polymq/polymq/routing"
)

// Bindings of the shape that a fleet of services makes: four words, service,
// tenant, entity and event. Tenants grow with the bindings, all else is fixed.
const (
	services          = 20
	entities          = 25
	events            = 20
	bindingsPerTenant = 40
	bindingsPerQueue  = 10
	differentTopics   = 10_000
)

var sizes = []int{1_000, 100_000, 1_000_000}

type words struct {
	rng     *rand.Rand
	tenants int
}

func (w words) service() string { return fmt.Sprintf("service%02d", w.rng.IntN(services)) }
func (w words) tenant() string  { return fmt.Sprintf("tenant%06d", w.rng.IntN(w.tenants)) }
func (w words) entity() string  { return fmt.Sprintf("entity%02d", w.rng.IntN(entities)) }
func (w words) event() string   { return fmt.Sprintf("event%02d", w.rng.IntN(events)) }

// load is the bindings and topics of one size. Every key is a string of its
// own, made before anything is measured.
func load(n int) (keys, topics []string) {
	w := words{rand.New(rand.NewPCG(20261, uint64(n))), max(1, n/bindingsPerTenant)}
	for range n {
		var key string
		switch p := w.rng.IntN(1001); {
		case p < 700:
			key = w.service() + "." + w.tenant() + ".*." + w.event()
		case p < 900:
			key = w.service() + "." + w.tenant() + ".#"
		case p < 960:
			key = w.service() + "." + w.tenant() + "." + w.entity() + "." + w.event()
		case p < 1000:
			key = w.service() + ".*." + w.entity() + "." + w.event()
		default:
			key = w.service() + ".*.*." + w.event()
		}
		keys = append(keys, key)
	}
	for range differentTopics {
		topics = append(topics, w.service()+"."+w.tenant()+"."+w.entity()+"."+w.event())
	}
	return keys, topics
}

func queueName(i int) string { return fmt.Sprintf("queue%07d", i/bindingsPerQueue) }

// heap is the live heap.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// BenchmarkTopic matches topics against n bindings, 10,000 of them by one, then
// the same by the other, in turn, so that both have the same machine: the
// figures are medians of these rounds.
//
// B/binding is the growth of the live heap from before the structure was built
// to when it stands alone, without the key and queue name strings, which the
// caller made before. For polymq that includes the exchange and the queues (one
// for ten bindings), what leads from a queue back to its bindings, and what
// Topology gives back; for gsl, whose value is an int32, there is no such thing.
func BenchmarkTopic(b *testing.B) {
	for _, n := range sizes {
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) { benchTopic(b, n) })
	}
}

// What is measured does the same work: topic by topic, the queues of a table
// are those of gsl's values.
func TestSameMatches(t *testing.T) {
	keys, topics := load(20_000)
	table, _, _ := build(t, keys)
	list, _, _ := buildGSL(t, keys)
	for _, topic := range topics[:2000] {
		var want []string
		list.Match(topic, func(i int32) { want = append(want, queueName(int(i))) })
		slices.Sort(want)
		want = slices.Compact(want)
		got, err := table.Route(nil, "events", topic, nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("%s: polymq %q, gsl %q", topic, got, want)
		}
	}
}

func benchTopic(b *testing.B, n int) {
	keys, topics := load(n)
	table, tableBytes, tableTime := build(b, keys)
	list, listBytes, listTime := buildGSL(b, keys)
	queues := make([]string, 0, 1024)
	byTable := func() (matches int) {
		for _, topic := range topics {
			queues, _ = table.Route(queues[:0], "events", topic, nil)
			matches += len(queues)
		}
		return matches
	}
	values := make([]int32, 0, 1024)
	take := func(v int32) { values = append(values, v) }
	byList := func() (matches int) {
		for _, topic := range topics {
			values = values[:0]
			list.Match(topic, take)
			matches += len(values)
		}
		return matches
	}
	// A queue that two bindings lead to is one match of a table and two of gsl.
	tableMatches, listMatches := byTable(), byList()
	if tableMatches > listMatches || float64(tableMatches) < 0.99*float64(listMatches) {
		b.Fatalf("polymq finds %d matches, gsl %d", tableMatches, listMatches)
	}
	var tableRounds, listRounds, ratios []float64
	for b.Loop() {
		start := time.Now()
		byTable()
		middle := time.Now()
		byList()
		x, y := float64(middle.Sub(start)), float64(time.Since(middle))
		tableRounds, listRounds, ratios = append(tableRounds, x), append(listRounds, y), append(ratios, x/y)
	}
	per := float64(len(topics))
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(tableRounds)/per, "polymq-ns/match")
	b.ReportMetric(median(listRounds)/per, "gsl-ns/match")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(testing.AllocsPerRun(1, func() { byTable() })/per, "polymq-allocs/match")
	b.ReportMetric(tableBytes, "polymq-B/binding")
	b.ReportMetric(listBytes, "gsl-B/binding")
	b.ReportMetric(tableTime, "polymq-build-ns/binding")
	b.ReportMetric(listTime, "gsl-build-ns/binding")
	b.ReportMetric(float64(tableMatches)/per, "queues/match")
}

func median(xs []float64) float64 {
	slices.Sort(xs)
	return xs[len(xs)/2]
}

// build returns the table, and the bytes and nanoseconds it took a binding.
func build(b testing.TB, keys []string) (table *routing.Table, bytes, took float64) {
	b.Helper()
	top := routing.Topology{Exchanges: []routing.Exchange{{Name: "events", Kind: routing.Topic}}}
	for i, key := range keys {
		if i%bindingsPerQueue == 0 {
			top.Queues = append(top.Queues, routing.Queue{Name: queueName(i)})
		}
		top.Bindings = append(top.Bindings, routing.Binding{Exchange: "events", Queue: top.Queues[len(top.Queues)-1].Name, Key: key})
	}
	before, start := heap(), time.Now()
	table, err := routing.NewTable(top)
	took = float64(time.Since(start)) / float64(len(keys))
	if err != nil {
		b.Fatal(err)
	}
	bytes = (heap() - before) / float64(len(keys))
	runtime.KeepAlive(top)
	return table, bytes, took
}

func buildGSL(b testing.TB, keys []string) (list *gsl.GenericSublist[int32], bytes, took float64) {
	b.Helper()
	subjects := make([]string, len(keys))
	for i, key := range keys {
		if subjects[i] = key; strings.HasSuffix(key, "#") {
			subjects[i] = strings.TrimSuffix(key, "#") + ">"
		}
	}
	before, start := heap(), time.Now()
	list = gsl.NewSublist[int32]()
	for i, subject := range subjects {
		if err := list.Insert(subject, int32(i)); err != nil {
			b.Fatal(err)
		}
	}
	took = float64(time.Since(start)) / float64(len(keys))
	bytes = (heap() - before) / float64(len(keys))
	runtime.KeepAlive(subjects)
	return list, bytes, took
}

// BenchmarkApply adds one binding to a table of n, and takes it out again: two
// tables an op. gsl has no like: it changes in place, under its lock.
func BenchmarkApply(b *testing.B) {
	for _, n := range sizes {
		keys, _ := load(n)
		one := routing.Topology{Bindings: []routing.Binding{{Exchange: "events", Queue: queueName(0), Key: "service00.tenant000000.*.event99"}}}
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			table, _, _ := build(b, keys)
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
		keys, _ := load(n)
		b.Run(fmt.Sprintf("n=%d", n), func(b *testing.B) {
			table, _, _ := build(b, keys)
			var longest time.Duration
			i := 0
			for b.Loop() {
				start := time.Now()
				next, err := table.Apply(routing.Topology{Bindings: []routing.Binding{{
					Exchange: "events", Queue: queueName(i % n), Key: fmt.Sprintf("service00.grown%d.*.event00", i),
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
