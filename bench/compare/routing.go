package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/polymq/polymq/bench/topics"
)

// tableSizes are numbers of bindings.
var tableSizes = []int{1_000, 100_000, 1_000_000}

// routing measures matching: 10,000 topics against a table, and against
// nats-server's gsl.
//
// The bytes of a binding are the growth of the live heap from before the
// structure was built to when it stands alone, without the strings of keys and
// queues' names, which the caller made before. Of polymq's they include the
// exchange and the queues (one for ten bindings), what leads from a queue back
// to its bindings, and what Topology gives back; for gsl, whose value is an
// int32, there is no such thing.
func (r *runner) routing(ctx context.Context) error {
	for _, n := range r.selected("routing", "memory", tableSizes...) {
		if err := r.table(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

func (r *runner) table(ctx context.Context, n int) error {
	keys, subjects := topics.Load(n)
	list, listBuilt, err := topics.BuildGSL(keys)
	if err != nil {
		return err
	}
	table, tableBuilt, err := topics.BuildTable(keys)
	if err != nil {
		return err
	}
	values := make([]int32, 0, 1024)
	take := func(v int32) { values = append(values, v) }
	byList := func() (matches int) {
		for _, topic := range subjects {
			values = values[:0]
			list.Match(topic, take)
			matches += len(values)
		}
		return matches
	}
	queues := make([]string, 0, 1024)
	byTable := func() (matches int) {
		for _, topic := range subjects {
			queues, _ = table.Route(queues[:0], topics.Exchange, topic, nil)
			matches += len(queues)
		}
		return matches
	}
	// A queue that two bindings lead to is one match of a table and two of gsl.
	if ours, theirs := byTable(), byList(); ours > theirs || float64(ours) < 0.99*float64(theirs) {
		return fmt.Errorf("routing, %d bindings: polymq finds %d matches, gsl %d", n, ours, theirs)
	}
	matching := func(name string, match func() int) trial {
		allocs := testing.AllocsPerRun(1, func() { match() }) / float64(len(subjects))
		return trial{name: name, run: func(context.Context) (sample, error) {
			cpu, start := processCPU(), time.Now()
			match()
			per := float64(len(subjects))
			return sample{value: float64(time.Since(start)) / per, allocs: allocs, cpu: float64((processCPU() - cpu).Nanoseconds()) / 1e3 / per}, nil
		}}
	}
	trials := []trial{matching("gsl", byList), matching("polymq", byTable)}
	rounds, err := interleave(ctx, trials, max(r.rounds, 9), r.patience)
	if err != nil {
		return err
	}
	c := newCell("routing", "memory", n, trials, rounds)
	c.Entries[0].Bytes, c.Entries[1].Bytes = listBuilt.Bytes, tableBuilt.Bytes
	r.results.put(c)
	fmt.Fprint(os.Stderr, c.text())
	runtime.KeepAlive(keys)
	list, table, keys, subjects = nil, nil, nil, nil
	debug.FreeOSMemory()
	return nil
}
