package conformance

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var runRows = []row{
	{promise: 19, name: "settles", run: runSettles},
	{promise: 19, name: "finishes", run: runFinishes},
	{promise: 19, name: "gives-back", run: runGivesBack},
	{promise: 19, name: "concurrency", run: runConcurrency},
}

func runSettles(e *env) {
	c := e.open()
	dead := c.Features().Has(polymq.FeatureDeadLetter)
	if dead {
		e.declare(c, "dead", routing.Queue{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"})
	} else {
		e.declare(c, "q")
	}
	e.publish(c, "", msg("q", "fine"), msg("q", "permanent"), msg("q", "again"), msg("q", "own"), msg("q", "stop"))
	s, err := c.Subscriber(e.ctx, "q", &polymq.SubscriberOptions{Prefetch: 1, Backoff: func(int) time.Duration { return 0 }})
	e.must(err, "Subscriber")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	calls := map[string]int{}
	err = s.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		body := string(d.Body)
		calls[body]++
		switch {
		case body == "permanent":
			return polymq.Permanent(errors.New("hopeless"))
		case body == "again" && calls[body] == 1:
			return errors.New("not yet")
		case body == "own":
			return d.Ack(ctx)
		}
		if calls["stop"] > 0 && calls["again"] > 1 {
			cancel()
		}
		return nil
	})
	if err != nil {
		e.Fatalf("Run after its context ended: got %v, want nil", err)
	}
	for body, want := range map[string]int{"fine": 1, "permanent": 1, "again": 2, "own": 1, "stop": 1} {
		if calls[body] != want {
			e.Errorf("the handler saw %q %d times, want %d", body, calls[body], want)
		}
	}
	e.close(s)
	e.has(c, "q")
	if dead {
		e.ack(e.body(e.subscriber(c, "dead", 1), "permanent"))
	}
}

// runFinishes ends Run's context while a handler is at work.
func runFinishes(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(6, "q", "")...)
	s, err := c.Subscriber(e.ctx, "q", &polymq.SubscriberOptions{Prefetch: 6, Concurrency: 2})
	e.must(err, "Subscriber")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	var started, finished atomic.Int32
	both := make(chan struct{})
	go func() { // ends with the row's context at the latest
		select {
		case <-both:
		case <-e.ctx.Done():
		}
		cancel()
	}()
	err = s.Run(ctx, func(hctx context.Context, d *polymq.Delivery) error {
		if started.Add(1) == 2 {
			close(both)
		}
		<-ctx.Done()
		// Settling under way works though Run's context has ended.
		finished.Add(1)
		return nil
	})
	if err != nil {
		e.Errorf("Run: got %v, want nil after a clean drain", err)
	}
	n := int(finished.Load())
	if n != int(started.Load()) || n < 2 {
		e.Fatalf("Run returned with %d of %d handlers finished", n, started.Load())
	}
	e.close(s)
	if left := len(e.drain(e.open(), "q")); left != 6-n {
		e.Errorf("%d handlers finished and %d messages are left, want %d", n, left, 6-n)
	}
}

// runGivesBack shows that what Run had not started on is free at once, without
// the subscriber being closed.
func runGivesBack(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(6, "q", "")...)
	s, err := c.Subscriber(e.ctx, "q", &polymq.SubscriberOptions{Prefetch: 6})
	e.must(err, "Subscriber")
	ctx, cancel := context.WithCancel(e.ctx)
	defer cancel()
	err = s.Run(ctx, func(context.Context, *polymq.Delivery) error {
		cancel()
		return nil
	})
	e.must(err, "Run")
	other := e.subscriber(e.open(), "q", 6)
	var got []string
	for range 5 {
		d := e.receive(other)
		got = append(got, string(d.Body))
		if f := c.Features(); f.Has(polymq.FeatureAttempts) && !f.CountsReturned && d.Attempt != 1 {
			e.Errorf("message %s, which no handler saw, comes as attempt %d, want 1", d.Body, d.Attempt)
		}
		e.ack(d)
	}
	slices.Sort(got)
	if want := []string{"1", "2", "3", "4", "5"}; !slices.Equal(got, want) {
		e.Errorf("given back: %q, want %q", got, want)
	}
}

func runConcurrency(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(40, "q", "")...)
	s, err := c.Subscriber(e.ctx, "q", &polymq.SubscriberOptions{Prefetch: 10, Concurrency: 4})
	e.must(err, "Subscriber")
	ctx, cancel := context.WithTimeout(e.ctx, 4*e.b.Patience)
	defer cancel()
	var running, most, done atomic.Int32
	four := make(chan struct{})
	err = s.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		n := running.Add(1)
		defer running.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if n == 4 {
			select {
			case <-four:
			default:
				close(four)
			}
		}
		select { // all four slots are used at once
		case <-four:
		case <-ctx.Done():
		}
		if done.Add(1) == 40 {
			cancel()
		}
		return nil
	})
	e.must(err, "Run")
	if done.Load() != 40 || most.Load() != 4 {
		e.Errorf("%d of 40 messages handled, at most %d at once, want 4", done.Load(), most.Load())
	}
	e.close(s)
	e.has(c, "q")
}
