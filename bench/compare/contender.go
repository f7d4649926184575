package main

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxWindow = 1024 // the largest that is measured
	callers   = 64
	prefetch  = 256

	// dedupWindow is polymq's, and so what the raw code has.
	dedupWindow = 20 * time.Second
)

// A contender does the same work as the others on one backend, its own way. It
// has its queues, which are empty but for what the harness put there.
type contender interface {
	// publish sends n messages of the body and returns when all are confirmed.
	publish(ctx context.Context, l load, n int, body []byte) error
	// consume receives messages and acknowledges each, until each says that
	// there are no more to come. It returns when the acknowledgements are sent,
	// and when that was, for ending a subscription is not what is measured.
	consume(ctx context.Context, each func(body []byte) bool) (settled time.Time, err error)
	// purge empties the queues.
	purge(ctx context.Context) error
	close()
}

// load is how messages are published.
type load struct {
	callers int // so many goroutines
	window  int // each with so many messages outstanding; 1: publish and wait
}

// setup is where a contender works.
type setup struct {
	url    string
	kind   string // of queue: classic or quorum
	queues int    // 0: one, published to directly; else so many behind a topic exchange
}

// With a topic exchange messages have this key, and queues this binding.
const (
	topicKey     = "order.eu.paid"
	topicPattern = "order.*.paid"
)

func (s setup) count() int { return max(1, s.queues) }

// names are those of the contender's queues.
func (s setup) names(who string) []string {
	names := make([]string, s.count())
	for i := range names {
		names[i] = "bench_" + who + "_" + s.kind + "_" + strconv.Itoa(s.queues) + "_" + strconv.Itoa(i)
	}
	return names
}

type opener func(ctx context.Context, s setup) (contender, error)

// rival is a contender's name and how it is opened.
type rival struct {
	name string
	peer bool // measured more briefly: it is only to be ahead of
	open opener
}

var ids atomic.Uint64

// nextID is an ID as an application would make one that wants none better.
func nextID() string { return runID + strconv.FormatUint(ids.Add(1), 36) }

var runID = strconv.FormatInt(time.Now().UnixNano(), 36) + "-"

// eachOf splits n over k goroutines.
func eachOf(k, n int, f func(n int) error) error {
	var wg sync.WaitGroup
	errs := make([]error, k)
	for i := range k {
		share := n / k
		if i < n%k {
			share++
		}
		wg.Go(func() { errs[i] = f(share) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// spread has the load's callers each do their share of n, by one for a publish
// and wait, by many for what is pipelined.
func (l load) spread(n int, one, many func(n int) error) error {
	f := one
	if l.window > 1 {
		f = many
	}
	if l.callers == 1 {
		return f(n)
	}
	return eachOf(l.callers, n, f)
}

// closers end what a contender has, last first.
type closers []func()

func (c *closers) add(f func()) { *c = append(*c, f) }

// close is by pointer, so that a deferred one closes what was added since.
func (c *closers) close() {
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
}
