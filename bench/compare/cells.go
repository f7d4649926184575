package main

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

// runner measures what is selected and puts it into the results.
type runner struct {
	urls     brokers
	match    *regexp.Regexp // on op/backend/size
	only     *regexp.Regexp // on the contenders' names; raw takes part always
	rounds   int
	span     time.Duration // of a contender's round; peers have half
	patience time.Duration // with a row and its peers, after its third round
	profile  string        // write a CPU profile of polymq's rounds to this file
	results  *Results
}

// operation is a row of the tables.
type operation struct {
	name  string
	round func(ctx context.Context, c contender, n int, body []byte) (sample, error)
	least int // messages a round, of peers at most brief
	fixed int // of latency: so many, as the rate says
	// whole says that peers have as many messages: how many are in a queue makes a
	// difference to brokers.
	whole bool
}

const brief = 512

func publishOp(name string, l load) operation {
	return operation{name: name, least: max(64, 4*l.callers, 2*l.window), round: func(ctx context.Context, c contender, n int, body []byte) (sample, error) {
		return publishing(ctx, c, l, n, body)
	}}
}

const latencyRound = 120

var operations = []operation{
	publishOp("publish", load{1, 1}),
	publishOp("pipeline-256", load{1, 256}),
	publishOp("pipeline-1024", load{1, maxWindow}),
	publishOp("callers-64", load{callers, 1}),
	{name: "consume", round: consuming, least: 4096, whole: true},
	{name: "latency", round: latency, fixed: latencyRound},
}

var bodySizes = []int{256, 4096}

// fanouts are numbers of queues behind a topic exchange.
var fanouts = []int{1, 3, 10}

func cellName(op, backend string, size int) string { return fmt.Sprintf("%s/%s/%d", op, backend, size) }

// selected are those of a backend's cells that match.
func (r *runner) selected(op, backend string, sizes ...int) (bodies []int) {
	for _, size := range sizes {
		if r.match.MatchString(cellName(op, backend, size)) {
			bodies = append(bodies, size)
		}
	}
	return bodies
}

// backend measures all that is selected of one backend.
func (r *runner) backend(ctx context.Context, b backend) error {
	type cell struct {
		op   operation
		size int
	}
	var cells []cell
	for _, op := range operations {
		sizes := bodySizes
		if op.fixed > 0 {
			sizes = bodySizes[:1]
		}
		for _, size := range r.selected(op.name, b.name, sizes...) {
			cells = append(cells, cell{op, size})
		}
	}
	var fans []int
	for _, queues := range fanouts {
		if len(r.selected(fanName(queues), b.name, 256)) > 0 {
			fans = append(fans, queues)
		}
	}
	if len(cells)+len(fans) == 0 {
		return nil
	}
	if b.begin != nil {
		if err := b.begin(ctx, r.urls); err != nil {
			return err
		}
	}
	rivals := r.rivals(b.rivals)
	if len(cells) > 0 {
		cs, closeAll, err := b.open(ctx, r.urls, rivals, 0)
		if err != nil {
			return err
		}
		defer closeAll()
		for _, c := range cells {
			if err := r.cell(ctx, c.op, b.name, c.size, rivals, cs); err != nil {
				return err
			}
		}
	}
	for _, queues := range fans {
		rivals := slices.DeleteFunc(slices.Clone(rivals), func(v rival) bool {
			return v.name == "watermill" || v.name == "gocdk" && b.name == "jetstream"
		})
		cs, closeAll, err := b.open(ctx, r.urls, rivals, queues)
		if err != nil {
			return err
		}
		err = r.cell(ctx, publishOp(fanName(queues), load{1, 256}), b.name, 256, rivals, cs)
		closeAll()
		if err != nil {
			return err
		}
	}
	return nil
}

func fanName(queues int) string { return fmt.Sprintf("fanout-%d", queues) }

// memory measures the backend that is none.
func (r *runner) memory(ctx context.Context) error {
	sizes := r.selected("flow", "memory", bodySizes...)
	if len(sizes) == 0 {
		return nil
	}
	rivals := r.rivals(memoryRivals)
	cs, closeAll, err := backend{name: "memory"}.open(ctx, nil, rivals, 0)
	if err != nil {
		return err
	}
	defer closeAll()
	op := publishOp("flow", load{1, 1})
	for _, size := range sizes {
		if err := r.cell(ctx, op, "memory", size, rivals, cs); err != nil {
			return err
		}
	}
	return nil
}

// rivals are those that take part.
func (r *runner) rivals(all []rival) []rival {
	if r.only == nil {
		return all
	}
	some := all[:1:1]
	for _, v := range all[1:] {
		if r.only.MatchString(v.name) {
			some = append(some, v)
		}
	}
	return some
}

// cell measures one row of the tables.
func (r *runner) cell(ctx context.Context, op operation, backend string, size int, rivals []rival, cs []contender) error {
	body := make([]byte, size)
	var trials []trial
	fail := func(err error) error { return fmt.Errorf("%s: %w", cellName(op.name, backend, size), err) }
	for i, v := range rivals {
		round := func(ctx context.Context, n int) (sample, error) { return op.round(ctx, cs[i], n, body) }
		var t trial
		if op.fixed > 0 {
			t = trial{name: v.name, run: func(ctx context.Context) (sample, error) { return round(ctx, op.fixed) }}
		} else {
			span, least := r.span, op.least
			if v.peer {
				span = r.span / 2
				if !op.whole {
					least = min(least, brief)
				}
			}
			var err error
			if t, err = sized(ctx, v.name, span, least, round); err != nil {
				return fail(err)
			}
		}
		if v.name == "polymq" && r.profile != "" {
			var err error
			if t, err = r.profiled(ctx, t); err != nil {
				return fail(err)
			}
		}
		t.peer = v.peer
		trials = append(trials, t)
	}
	rounds, err := interleave(ctx, trials, r.rounds, r.patience)
	if r.profile != "" {
		pprof.StopCPUProfile()
	}
	if err != nil {
		return fail(err)
	}
	c := newCell(op.name, backend, size, trials, rounds)
	r.results.put(c)
	fmt.Fprint(os.Stderr, c.text())
	return nil
}

// profiled runs the profiler from the first round of a trial on: the others'
// rounds are in it too, unless the contenders are restricted to polymq.
func (r *runner) profiled(ctx context.Context, t trial) (trial, error) {
	f, err := os.Create(strings.TrimSuffix(r.profile, ".pprof") + ".pprof")
	if err != nil {
		return t, err
	}
	return t, pprof.StartCPUProfile(f)
}
