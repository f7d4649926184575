// Package topics makes bindings and topics of the shape that a fleet of services
// has, and the structures that route by them: polymq's table and nats-server's
// gsl.
package topics

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server/gsl"

	"github.com/polymq/polymq/routing"
)

// Four words: service, tenant, entity and event. Tenants grow with the bindings,
// all else is fixed.
const (
	services          = 20
	entities          = 25
	events            = 20
	bindingsPerTenant = 40
	bindingsPerQueue  = 10
	differentTopics   = 10_000
)

// Exchange is where the bindings lead from.
const Exchange = "events"

type words struct {
	rng     *rand.Rand
	tenants int
}

func (w words) service() string { return fmt.Sprintf("service%02d", w.rng.IntN(services)) }
func (w words) tenant() string  { return fmt.Sprintf("tenant%06d", w.rng.IntN(w.tenants)) }
func (w words) entity() string  { return fmt.Sprintf("entity%02d", w.rng.IntN(entities)) }
func (w words) event() string   { return fmt.Sprintf("event%02d", w.rng.IntN(events)) }

// Load is the bindings and topics of one size. Every key is a string of its
// own, made before anything is measured.
func Load(n int) (keys, topics []string) {
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

// Queue is the name of the queue of the binding i.
func Queue(i int) string { return fmt.Sprintf("queue%07d", i/bindingsPerQueue) }

// Topology is the topic exchange, the queues and the bindings of the keys.
func Topology(keys []string) routing.Topology {
	t := routing.Topology{Exchanges: []routing.Exchange{{Name: Exchange, Kind: routing.Topic}}}
	for i, key := range keys {
		if i%bindingsPerQueue == 0 {
			t.Queues = append(t.Queues, routing.Queue{Name: Queue(i)})
		}
		t.Bindings = append(t.Bindings, routing.Binding{Exchange: Exchange, Queue: t.Queues[len(t.Queues)-1].Name, Key: key})
	}
	return t
}

// Built is what building a structure took, of one binding.
type Built struct {
	Bytes float64 // of live heap
	Nanos float64
}

// BuildTable builds polymq's table.
func BuildTable(keys []string) (*routing.Table, Built, error) {
	t := Topology(keys)
	before, start := heap(), time.Now()
	table, err := routing.NewTable(t)
	if err != nil {
		return nil, Built{}, err
	}
	b := built(before, start, len(keys))
	runtime.KeepAlive(t)
	return table, b, nil
}

// BuildGSL builds nats-server's list, whose values are the numbers of the keys.
func BuildGSL(keys []string) (*gsl.GenericSublist[int32], Built, error) {
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
			return nil, Built{}, err
		}
	}
	b := built(before, start, len(keys))
	runtime.KeepAlive(subjects)
	return list, b, nil
}

func built(before float64, start time.Time, n int) Built {
	took := float64(time.Since(start))
	return Built{Bytes: (heap() - before) / float64(n), Nanos: took / float64(n)}
}

// heap is the live heap.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}
