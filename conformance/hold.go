package conformance

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq"
)

var holdRows = []row{
	{promise: 14, name: "not-shared", run: heldNotShared},
	{promise: 14, name: "beyond-the-lease", run: heldBeyondLease},
	{promise: 14, name: "extend", run: extendHold},
	{promise: 14, name: "lost", run: lostHold},
	{promise: 14, name: "lost-to-another", run: lostToAnother},

	{promise: 18, name: "never-above", run: prefetchNeverAbove},
	{promise: 18, name: "next-after-settling", run: prefetchNext},
	{promise: 18, name: "leaves-the-rest", run: prefetchLeavesRest},
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
			e.close(rest)
			e.publish(c, "", numbered(10, "q", "")...)
			// Unsettled may be older than Ready, and be what the other held.
			e.eventually("Inspect counts 3 unsettled messages and 7 ready ones", func() bool {
				info, err := other.Inspect(e.ctx, "q")
				e.must(err, "Inspect")
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
