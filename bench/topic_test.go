package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
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

// BenchmarkTopic matches topics against n bindings. B/binding is the growth of
// the live heap from before the structure was built to when it stands alone,
// without the key and queue name strings, which the caller made before. For
// polymq that includes the exchange and the queues (one for ten bindings), what
// leads from a queue back to its bindings, and what Topology gives back; for
// gsl, whose value is an int32, there is no such thing.
func BenchmarkTopic(b *testing.B) {
	for _, n := range sizes {
		keys, topics := load(n)
		b.Run(fmt.Sprintf("n=%d/polymq", n), func(b *testing.B) { benchTable(b, keys, topics) })
		b.Run(fmt.Sprintf("n=%d/gsl", n), func(b *testing.B) { benchGSL(b, keys, topics) })
	}
}

func build(b *testing.B, keys []string) (table *routing.Table, perBinding float64, took time.Duration) {
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
	took = time.Since(start)
	if err != nil {
		b.Fatal(err)
	}
	perBinding = (heap() - before) / float64(len(keys))
	runtime.KeepAlive(top)
	return table, perBinding, took
}

func benchTable(b *testing.B, keys, topics []string) {
	table, perBinding, took := build(b, keys)
	dst := make([]string, 0, 1024)
	matches := 0
	for _, topic := range topics {
		dst, _ = table.Route(dst[:0], "events", topic, nil)
		matches += len(dst)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		dst, _ = table.Route(dst[:0], "events", topics[i], nil)
		if i++; i == len(topics) {
			i = 0
		}
	}
	b.ReportMetric(perBinding, "B/binding")
	b.ReportMetric(float64(matches)/float64(len(topics)), "matches/op")
	b.ReportMetric(float64(took.Nanoseconds())/float64(len(keys)), "build-ns/binding")
}

func benchGSL(b *testing.B, keys, topics []string) {
	subjects := make([]string, len(keys))
	for i, key := range keys {
		if subjects[i] = key; strings.HasSuffix(key, "#") {
			subjects[i] = strings.TrimSuffix(key, "#") + ">"
		}
	}
	before, start := heap(), time.Now()
	list := gsl.NewSublist[int32]()
	for i, subject := range subjects {
		if err := list.Insert(subject, int32(i)); err != nil {
			b.Fatal(err)
		}
	}
	took := time.Since(start)
	perBinding := (heap() - before) / float64(len(keys))
	dst := make([]int32, 0, 1024)
	take := func(v int32) { dst = append(dst, v) }
	matches := 0
	for _, topic := range topics {
		dst = dst[:0]
		list.Match(topic, take)
		matches += len(dst)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		dst = dst[:0]
		list.Match(topics[i], take)
		if i++; i == len(topics) {
			i = 0
		}
	}
	b.ReportMetric(perBinding, "B/binding")
	b.ReportMetric(float64(matches)/float64(len(topics)), "matches/op")
	b.ReportMetric(float64(took.Nanoseconds())/float64(len(keys)), "build-ns/binding")
}

// BenchmarkApply adds one binding to a table of n, and takes it out again. gsl
// changes in place, under its lock; a table makes the next one beside the old.
func BenchmarkApply(b *testing.B) {
	for _, n := range sizes {
		keys, _ := load(n)
		one := routing.Topology{Bindings: []routing.Binding{{Exchange: "events", Queue: queueName(0), Key: "service00.tenant000000.*.event99"}}}
		b.Run(fmt.Sprintf("n=%d/polymq", n), func(b *testing.B) {
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
