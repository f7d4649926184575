package conformance

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var consumeRows = []row{
	{promise: 13, name: "subscriber-closed", run: subscriberClosed},
	{promise: 13, name: "connection-closed", run: connectionClosed},
	{promise: 13, name: "acked-is-gone", run: ackedIsGone},
	{promise: 13, name: "context-ends", run: receiveContextEnds},
	{promise: 13, name: "batches", run: receiveBatches},
	{promise: 13, name: "iterator", run: iterates},
	{promise: 13, name: "shared-queue", run: sharedQueue},
	{promise: 13, name: "offline", run: offlineQueues},
	{promise: 13, name: "severed", hooks: hookSever, run: severedWhileHolding},
	{promise: 13, name: "killed", hooks: hookKill, run: killedWhileHolding},
}

// subscriberClosed wants what a subscriber held at once, and not when its lease is over,
// which began before Close. A machine that stands still may take as long, but hardly
// each time.
func subscriberClosed(e *env) {
	c := e.open()
	e.declare(c, "q")
	l := c.Features().Lease
	var took time.Duration
	for range 3 {
		if took = closeHolding(e, c); l == 0 || took <= l/2 {
			return
		}
	}
	e.Errorf("what the subscriber held came again only after %v, the lease being %v: it must come at once", took, l)
}

// closeHolding returns how long it takes to close a subscriber and to receive elsewhere
// what it held.
func closeHolding(e *env, c *polymq.Conn) time.Duration {
	e.publish(c, "", numbered(10, "q", "")...)
	s := e.subscriber(c, "q", 10)
	ds := e.receiveN(s, 6)
	e.ack(ds[1], ds[3])
	start := time.Now()
	e.close(s)
	again := e.subscriber(e.open(), "q", 10)
	ds = e.receiveN(again, 8)
	took := time.Since(start)
	e.ack(ds...)
	var got []string
	for _, d := range ds {
		got = append(got, string(d.Body))
	}
	slices.Sort(got)
	if want := []string{"0", "2", "4", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) {
		e.Fatalf("after Close another subscriber got %q, want %q", got, want)
	}
	e.close(again)
	e.has(c, "q")
	return took
}

func connectionClosed(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(10, "q", "")...)
	e.receiveN(e.subscriber(c, "q", 10), 5)
	e.close(c)
	e.hasAll(other, "q", bodies(numbered(10, "", "")))
}

func ackedIsGone(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(50, "q", "")...)
	s := e.subscriber(c, "q", 20)
	for range 50 {
		e.ack(e.receive(s))
	}
	e.close(s)
	e.has(e.open(), "q")
}

// receiveContextEnds gives up on Receive again and again while messages come.
func receiveContextEnds(e *env) {
	c := e.open()
	e.declare(c, "q")
	s := e.subscriber(c, "q", 5)
	if _, err := s.Receive(e.ended()); !errors.Is(err, context.Canceled) {
		e.Errorf("Receive with an ended context: got %v, want context.Canceled", err)
	}
	var want, got []string
	for i := range 60 {
		m := msg("q", strconv.Itoa(i))
		_, err := e.publisher(c, "").PublishAsync(e.ctx, m)
		e.must(err, "PublishAsync")
		want = append(want, string(m.Body))
		ctx, cancel := context.WithTimeout(e.ctx, time.Duration(i%5)*200*time.Microsecond)
		d, err := s.Receive(ctx)
		cancel()
		switch {
		case err == nil:
			got = append(got, string(d.Body))
			e.ack(d)
		case !errors.Is(err, context.DeadlineExceeded):
			e.Fatalf("Receive whose context ended: %v", err)
		}
	}
	for len(got) < len(want) {
		d := e.receive(s)
		got = append(got, string(d.Body))
		e.ack(d)
	}
	if !slices.Equal(got, want) {
		e.Fatal(difference(got, want))
	}
}

func receiveBatches(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(50, "q", "")...)
	s := e.subscriber(c, "q", 20)
	var got []string
	for len(got) < 50 {
		ds, err := s.ReceiveBatch(e.short(), 8)
		e.must(err, "ReceiveBatch")
		if len(ds) == 0 || len(ds) > 8 {
			e.Fatalf("ReceiveBatch of at most 8 returned %d", len(ds))
		}
		for _, d := range ds {
			got = append(got, string(d.Body))
		}
		e.ack(ds...)
	}
	if want := bodies(numbered(50, "", "")); !slices.Equal(got, want) {
		e.Fatal(difference(got, want))
	}
}

func iterates(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(10, "q", "")...)
	s := e.subscriber(c, "q", 4)
	n := 0
	for d, err := range s.Deliveries(e.short()) {
		e.must(err, "Deliveries")
		e.ack(d)
		if n++; n == 5 {
			break
		}
	}
	ctx, cancel := context.WithCancel(e.short())
	for d, err := range s.Deliveries(ctx) {
		e.must(err, "Deliveries after a break")
		if want := strconv.Itoa(n); string(d.Body) != want {
			e.Fatalf("received %q, want %q", d.Body, want)
		}
		e.ack(d)
		if n++; n == 10 {
			cancel() // ends the iteration without an error
		}
	}
	cancel()
	if n != 10 {
		e.Fatalf("the iteration ended after %d messages, want 10", n)
	}
	e.close(s)
	ended := 0
	for _, err := range s.Deliveries(e.short()) {
		e.mustBe(err, "Deliveries of a closed subscriber", polymq.ErrClosed)
		ended++
	}
	if ended != 1 {
		e.Errorf("Deliveries of a closed subscriber yielded %d times, want one error", ended)
	}
}

// sharedQueue has several subscribers, on two connections, take turns: each
// message goes to one of them.
func sharedQueue(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	const n = 200
	var mu sync.Mutex
	got := map[string]int{}
	all := make(chan struct{})
	ctx, cancel := context.WithTimeout(e.ctx, 2*e.b.Patience)
	defer cancel()
	var wg sync.WaitGroup
	for i := range 4 {
		s := e.subscriber([]*polymq.Conn{c, other}[i%2], "q", 5)
		wg.Go(func() {
			defer s.Close(e.ctx)
			for {
				d, err := s.Receive(ctx)
				if err != nil {
					return
				}
				if err := d.Ack(e.ctx); err != nil {
					e.Errorf("Ack: %v", err)
				}
				mu.Lock()
				got[string(d.Body)]++
				if len(got) == n {
					select {
					case <-all:
					default:
						close(all)
					}
				}
				mu.Unlock()
			}
		})
	}
	e.publish(c, "", numbered(n, "q", "")...)
	select {
	case <-all:
	case <-ctx.Done():
	}
	cancel()
	wg.Wait()
	if len(got) != n {
		e.Errorf("%d of %d messages came", len(got), n)
	}
	for body, times := range got {
		if times != 1 {
			e.Errorf("message %s came %d times", body, times)
		}
	}
	e.has(c, "q")
}

// offlineQueues shows that a bound queue collects messages whether or not
// anybody consumes it.
func offlineQueues(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "watched", "offline", to("x", "watched", ""), to("x", "offline", ""))
	s := e.subscriber(c, "watched", 5)
	e.publish(c, "x", numbered(5, "", "")...)
	for range 5 {
		e.ack(e.receive(s))
	}
	e.close(c)
	e.has(e.open(), "offline", "0", "1", "2", "3", "4")
}

// severedWhileHolding cuts the connection under a subscriber that holds
// messages: they are all settled in the end, here or after they came again.
func severedWhileHolding(e *env) {
	admin := e.open()
	e.declare(admin, "q")
	through, sever := e.b.Sever(e.TB, e.namespace())
	c := e.openAt(through)
	s := e.subscriber(c, "q", 10)
	e.publish(admin, "", numbered(10, "q", "")...)
	held := e.receiveN(s, 5)
	sever()
	done := map[string]bool{}
	for _, d := range held {
		switch err := d.Ack(e.short()); {
		case err == nil:
			done[string(d.Body)] = true
		case !errors.Is(err, polymq.ErrLost):
			e.Errorf("Ack of %s after the connection was cut: got %v, want nil or ErrLost", d.Body, err)
		}
	}
	e.publish(admin, "", msg("q", "last"))
	for !done["last"] || len(done) < 11 {
		d := e.receiveWithin(s, e.b.Patience+admin.Features().Lease)
		if err := d.Ack(e.short()); err != nil && !errors.Is(err, polymq.ErrLost) {
			e.Errorf("Ack: %v", err)
		}
		done[string(d.Body)] = true
	}
}

func killedWhileHolding(e *env) {
	admin := e.open()
	e.declare(admin, "q")
	through, kill := e.b.Kill(e.TB, e.namespace())
	victim := e.openVictim(through)
	s := e.subscriber(victim, "q", 10)
	e.publish(admin, "", numbered(10, "q", "")...)
	for _, d := range e.receiveN(s, 6) {
		if string(d.Body) == "0" {
			e.ack(d)
		}
	}
	e.eventually("the acknowledgement reaches the broker", func() bool {
		if !admin.Features().Has(polymq.FeatureInspect) {
			return true
		}
		info, err := admin.Inspect(e.ctx, "q")
		return err == nil && info.Ready+info.Unsettled == 9
	})
	kill()
	f := admin.Features()
	survivor := e.subscriber(admin, "q", 20)
	counted := map[string]int{}
	deadline := time.Now().Add(f.Lease + 2*e.b.Patience)
	for len(counted) < 9 {
		d := e.receiveWithin(survivor, time.Until(deadline))
		counted[string(d.Body)] = d.Attempt
		e.ack(d)
	}
	for body, attempt := range counted {
		n, _ := strconv.Atoi(body)
		if n == 0 {
			e.Errorf("message 0 was acknowledged before the kill, and came again")
		}
		if n <= 5 && f.Has(polymq.FeatureAttempts) && attempt != 2 {
			e.Errorf("message %s was held by the killed client and came again as attempt %d, want 2", body, attempt)
		}
	}
}
