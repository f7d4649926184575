package conformance

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
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

	{promise: 14, name: "not-shared", run: heldNotShared},
	{promise: 14, name: "beyond-the-lease", run: heldBeyondLease},
	{promise: 14, name: "extend", run: extendHold},
	{promise: 14, name: "lost", run: lostHold},
	{promise: 14, name: "lost-to-another", run: lostToAnother},

	{promise: 18, name: "never-above", run: prefetchNeverAbove},
	{promise: 18, name: "next-after-settling", run: prefetchNext},
	{promise: 18, name: "leaves-the-rest", run: prefetchLeavesRest},

	{promise: 19, name: "settles", run: runSettles},
	{promise: 19, name: "finishes", run: runFinishes},
	{promise: 19, name: "gives-back", run: runGivesBack},
	{promise: 19, name: "concurrency", run: runConcurrency},
}

func subscriberClosed(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(10, "q", "")
	e.publish(c, "", ms...)
	s := e.subscriber(c, "q", 10)
	ds := e.receiveN(s, 6)
	e.ack(ds[1], ds[3])
	start := time.Now()
	e.close(s)
	again := e.subscriber(e.open(), "q", 10)
	var got []string
	for _, d := range e.receiveN(again, 8) {
		got = append(got, string(d.Body))
		e.ack(d)
	}
	if l := c.Features().Lease; l > 0 && time.Since(start) > l {
		e.Errorf("what the subscriber held came again only after %v, the lease being %v: it must come at once", time.Since(start), l)
	}
	slices.Sort(got)
	if want := []string{"0", "2", "4", "5", "6", "7", "8", "9"}; !slices.Equal(got, want) {
		e.Fatalf("after Close another subscriber got %q, want %q", got, want)
	}
	e.close(again)
	e.has(c, "q")
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

// heldNotShared shows that what one subscriber holds goes to no other.
func heldNotShared(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	holder := e.subscriber(c, "q", 5)
	e.publish(c, "", numbered(5, "q", "")...)
	held := e.receiveN(holder, 5)
	for _, conn := range []*polymq.Conn{c, other} {
		s := e.subscriber(conn, "q", 5)
		e.publish(c, "", msg("q", "sentinel"))
		e.ack(e.body(s, "sentinel"))
		e.close(s)
	}
	e.ack(held...)
	e.close(holder)
	e.has(c, "q")
}

// heldBeyondLease holds a message for longer than the lease, where that is
// bearable: Backend.Namespace says how to get a short one.
func heldBeyondLease(e *env) {
	c, other := e.open(), e.open()
	f := c.Features()
	hold := max(f.Lease+f.Lease/2, e.b.Patience/5)
	if f.Lease > 2*e.b.Patience {
		hold = e.b.Patience / 5
		e.Logf("the lease of %v is too long to wait for: held for %v", f.Lease, hold)
	}
	e.declare(c, "q")
	holder := e.subscriber(c, "q", 2)
	e.publish(c, "", msg("q", "held"), msg("q", "prefetched"))
	d := e.body(holder, "held")
	s := e.subscriber(other, "q", 5)
	wait := time.NewTimer(hold)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-e.ctx.Done():
		e.Fatal(e.ctx.Err())
	}
	e.publish(c, "", msg("q", "sentinel"))
	e.ack(e.body(s, "sentinel"))
	e.ack(d)
	d = e.body(holder, "prefetched")
	if d.Redelivered || f.Has(polymq.FeatureAttempts) && d.Attempt != 1 {
		e.Errorf("what waited in the subscriber came with attempt %d, redelivered %v", d.Attempt, d.Redelivered)
	}
	e.ack(d)
	e.close(holder)
	e.close(s)
	e.has(c, "q")
}

func extendHold(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	s := e.subscriber(c, "q", 1)
	d := e.receive(s)
	for range 3 {
		e.must(d.Extend(e.ctx), "Extend of a held message")
	}
	e.ack(d)
	e.mustBe(d.Extend(e.ctx), "Extend of a settled message", polymq.ErrSettled)
	e.close(s)
	e.has(c, "q")
}

// lostHold settles what Close has given back.
func lostHold(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(4, "q", "")...)
	s := e.subscriber(c, "q", 4)
	ds := e.receiveN(s, 4)
	e.close(s)
	e.mustBe(ds[0].Ack(e.ctx), "Ack of what Close gave back", polymq.ErrLost)
	e.mustBe(ds[1].Nack(e.ctx, 0), "Nack of what Close gave back", polymq.ErrLost)
	e.mustBe(ds[2].Reject(e.ctx), "Reject of what Close gave back", polymq.ErrLost)
	e.mustBe(ds[3].Extend(e.ctx), "Extend of what Close gave back", polymq.ErrLost)
	e.hasAll(c, "q", []string{"0", "1", "2", "3"})
}

// lostToAnother settles a message that another subscriber holds by now.
func lostToAnother(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	s := e.subscriber(c, "q", 1)
	old := e.receive(s)
	e.close(s)
	s = e.subscriber(other, "q", 1)
	held := e.receive(s)
	e.mustBe(old.Ack(e.ctx), "Ack of a hold that another has", polymq.ErrLost)
	e.must(held.Extend(e.ctx), "Extend of the other's hold")
	e.close(s)
	s = e.subscriber(c, "q", 1)
	e.ack(e.body(s, "1"))
	if err := held.Ack(e.ctx); !errors.Is(err, polymq.ErrLost) {
		e.Errorf("Ack of a hold that ended: got %v, want ErrLost", err)
	}
	e.close(s)
	e.has(c, "q")
}

// prefetchNeverAbove hands a queue to a greedy subscriber and lets another
// count what is left.
func prefetchNeverAbove(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	greedy := e.subscriber(c, "q", 3)
	e.publish(c, "", numbered(10, "q", "")...)
	held := e.receiveN(greedy, 3)
	rest := e.subscriber(other, "q", 20)
	var got []string
	for range 7 {
		d := e.receive(rest)
		got = append(got, string(d.Body))
		e.ack(d)
	}
	// A sentinel that the greedy one must leave, being full.
	e.publish(c, "", msg("q", "sentinel"))
	e.ack(e.body(rest, "sentinel"))
	for _, d := range held {
		got = append(got, string(d.Body))
	}
	e.ack(held...)
	slices.Sort(got)
	if want := bodies(numbered(10, "", "")); !slices.Equal(got, want) {
		e.Fatalf("got %q, want %q", got, want)
	}
	if f := c.Features(); f.Has(polymq.FeatureInspect) {
		for range 4 {
			e.publish(c, "", numbered(10, "q", "")...)
			e.close(rest)
			e.eventually("Inspect counts 3 unsettled messages and 7 ready ones", func() bool {
				info, err := other.Inspect(e.ctx, "q")
				e.must(err, "Inspect")
				if info.Unsettled > 3 {
					e.Fatalf("a subscriber with a prefetch of 3 holds %d", info.Unsettled)
				}
				return info.Unsettled == 3 && info.Ready == 7
			})
			rest = e.subscriber(other, "q", 20)
			for range 7 {
				e.ack(e.receive(rest))
			}
			e.ack(e.receiveN(greedy, 3)...)
		}
	}
}

// prefetchNext shows that a full subscriber gets nothing, and gets the next
// message once it has settled one, in whatever way.
func prefetchNext(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(8, "q", "")...)
	s := e.subscriber(c, "q", 2)
	held := e.receiveN(s, 2)
	settle := []func(*polymq.Delivery) error{
		func(d *polymq.Delivery) error { return d.Ack(e.ctx) },
		func(d *polymq.Delivery) error { return d.Reject(e.ctx) },
	}
	for i := 2; i < 8; i++ {
		// Full: a Receive whose context is about to end gets nothing.
		ctx, cancel := context.WithTimeout(e.ctx, time.Millisecond)
		if d, err := s.Receive(ctx); err == nil {
			e.Fatalf("a subscriber with a prefetch of 2 that holds 2 received %q", d.Body)
		}
		cancel()
		e.must(settle[i%2](held[0]), "settling")
		held = append(held[1:], e.body(s, strconv.Itoa(i)))
	}
	e.ack(held...)
	e.close(s)
	e.has(c, "q")
}

// prefetchLeavesRest shows that the default holds a bounded number too, and
// that idle subscribers do not sit on others' work.
func prefetchLeavesRest(e *env) {
	c := e.open()
	e.declare(c, "q")
	var subs []*polymq.Subscriber
	for range 5 {
		subs = append(subs, e.subscriber(c, "q", 1))
	}
	e.publish(c, "", numbered(5, "q", "")...)
	var got []string
	for _, s := range subs {
		got = append(got, string(e.receive(s).Body))
	}
	slices.Sort(got)
	if want := bodies(numbered(5, "", "")); !slices.Equal(got, want) {
		e.Fatalf("five subscribers with a prefetch of 1 got %q, want one message each", got)
	}
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
