package conformance

import (
	"context"
	"fmt"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var temporaryRows = []row{
	{promise: 21, name: "exclusive", needs: []polymq.Feature{polymq.FeatureExclusive, polymq.FeatureInspect}, hooks: hookSever, run: exclusiveComesBack},
	{promise: 21, name: "temporary", needs: []polymq.Feature{polymq.FeatureExclusive}, hooks: hookSever, run: temporaryComesBack},
	{promise: 21, name: "waits-for-queue", run: waitsForQueue},

	{promise: 22, name: "exclusive", needs: []polymq.Feature{polymq.FeatureExclusive}, run: exclusiveEnds},
	{promise: 22, name: "temporary", needs: []polymq.Feature{polymq.FeatureExclusive}, run: temporaryQueues},
	{promise: 22, name: "auto-delete", needs: []polymq.Feature{polymq.FeatureAutoDelete}, run: autoDelete},
	{promise: 22, name: "queue-expiry", needs: []polymq.Feature{polymq.FeatureQueueExpiry}, run: queueExpires},
	{promise: 22, name: "queue-expiry-in-use", needs: []polymq.Feature{polymq.FeatureQueueExpiry}, run: queueInUseStays},
	{promise: 22, name: "run-of-deleted", run: runOfDeleted},
	{promise: 22, name: "crash", needs: []polymq.Feature{polymq.FeatureExclusive, polymq.FeatureAutoDelete}, hooks: hookKill, run: crashLeavesNothing},

	{promise: 23, name: "exclusive", needs: []polymq.Feature{polymq.FeatureExclusive}, run: exclusiveIsOnes},
}

// leavings is how long what a dead client leaves behind may stay: its record is
// trusted for some leases of the topology, and the hold on its queues with it.
func (e *env) leavings(c *polymq.Conn) time.Duration {
	return 10*e.b.Patience + 2*c.Features().Lease
}

func exclusive(name string) routing.Queue {
	return routing.Queue{Name: name, Exclusive: true, Transient: true}
}

// exclusiveIsOnes has another connection ask for everything: it may publish.
func exclusiveIsOnes(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, exclusive("q"), to("x", "q", "a"))
	e.publish(other, "x", msg("", "1"))
	for _, call := range []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"Declare", func(ctx context.Context) error { return other.Declare(ctx, topology(exclusive("q"))) }},
		{"Bind", func(ctx context.Context) error { return other.Bind(ctx, to("x", "q", "b")) }},
		{"Unbind", func(ctx context.Context) error { return other.Unbind(ctx, to("x", "q", "a")) }},
		{"Subscriber", func(ctx context.Context) error { _, err := other.Subscriber(ctx, "q", nil); return err }},
		{"Inspect", func(ctx context.Context) error { _, err := other.Inspect(ctx, "q"); return err }},
		{"Purge", func(ctx context.Context) error { _, err := other.Purge(ctx, "q"); return err }},
		{"DeleteQueue", func(ctx context.Context) error { return other.DeleteQueue(ctx, "q", nil) }},
	} {
		if err := call.do(e.short()); !is(err, polymq.ErrInUse) {
			e.Errorf("%s of an exclusive queue by another connection: got %v, want ErrInUse", call.name, err)
		}
	}
	e.publish(other, "x", msg("", "2"))
	e.publish(other, "", msg("q", "3"))
	// Its own connection may do it all.
	e.declare(c, exclusive("q"))
	e.must(c.Bind(e.ctx, to("x", "q", "b")), "Bind of one's own exclusive queue")
	e.must(c.Unbind(e.ctx, to("x", "q", "b")), "Unbind of one's own exclusive queue")
	e.has(c, "q", "1", "2", "3")
	e.publish(c, "", msg("q", "4"))
	if n, err := c.Purge(e.ctx, "q"); err != nil || n != 1 {
		e.Errorf("Purge of one's own exclusive queue: %d, %v, want 1", n, err)
	}
	e.must(c.DeleteQueue(e.ctx, "q", nil), "DeleteQueue of one's own exclusive queue")
	e.declare(other, exclusive("q"))
}

// exclusiveEnds closes the connection that has the queue: another one finds the
// name free.
func exclusiveEnds(e *env) {
	c, other := e.open(), e.open()
	e.declare(other, routing.Exchange{Name: "x", Kind: routing.Fanout}, "beside", to("x", "beside", ""))
	e.declare(c, exclusive("q"), to("x", "q", ""))
	e.publish(other, "x", msg("", "1"))
	e.close(c)
	e.gone(other, "q", e.patience())
	e.publish(other, "x", msg("", "2"))
	e.declare(other, "q")
	e.has(other, "q")
	e.has(other, "beside", "1", "2")
}

// exclusiveComesBack cuts the connection: the queue is made anew, empty, with
// its bindings, and its subscriber goes on.
func exclusiveComesBack(e *env) {
	admin := e.open()
	e.declare(admin, routing.Exchange{Name: "x", Kind: routing.Direct})
	through, sever := e.b.Sever(e.TB, e.namespace())
	c := e.openAt(through)
	e.declare(c, exclusive("q"), to("x", "q", "declared"))
	e.must(c.Bind(e.ctx, to("x", "q", "bound"), to("x", "q", "unbound")), "Bind")
	e.must(c.Unbind(e.ctx, to("x", "q", "unbound")), "Unbind")
	s := e.subscriber(c, "q", 1)
	e.publish(admin, "x", numbered(4, "declared", "before ")...)
	held := e.body(s, "before 0")
	sever()
	e.eventuallyWithin(e.again(), "the exclusive queue comes back, empty", func() bool {
		ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience)
		defer cancel()
		info, err := c.Inspect(ctx, "q")
		return err == nil && info.Ready+info.Unsettled == 0
	})
	if err := held.Ack(e.short()); err != nil && !is(err, polymq.ErrLost) {
		e.Errorf("Ack of what the queue held before: got %v, want nil or ErrLost", err)
	}
	for _, key := range []string{"declared", "bound"} {
		e.eventuallyWithin(e.again(), "the binding with key "+key+" comes back", func() bool { return e.try(admin, "x", msg(key, "after by "+key)) == nil })
		e.ack(e.laterBody(s, "after by "+key))
	}
	e.mustBe(e.try(admin, "x", msg("unbound", "")), "Publish by a binding that was removed before the cut", polymq.ErrUnroutable)
	// It is still its own, and ends with it.
	e.mustBe(admin.Declare(e.short(), topology(exclusive("q"))), "Declare by another connection", polymq.ErrInUse)
	e.close(c)
	e.gone(admin, "q", e.patience())
}

// laterBody receives a message after the connection was cut: what the
// subscriber had before cannot be settled any more.
func (e *env) laterBody(s *polymq.Subscriber, want string) *polymq.Delivery {
	e.Helper()
	for {
		d := e.receiveWithin(s, e.again())
		if string(d.Body) == want {
			return d
		}
		if err := d.Ack(e.short()); err == nil {
			e.Fatalf("received %.60q, want %.60q", d.Body, want)
		}
	}
}

// temporaryQueues gives each process what is published, by one call each.
func temporaryQueues(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic})
	e.mustBe(e.temporaryError(c, routing.Binding{Exchange: "missing"}), "SubscribeTemporary of a missing exchange", polymq.ErrNotFound)
	var subs []*polymq.Subscriber
	names := map[string]bool{}
	for i, conn := range []*polymq.Conn{c, c, other} {
		s, err := conn.SubscribeTemporary(e.ctx, &polymq.SubscriberOptions{Prefetch: 5}, routing.Binding{Exchange: "x", Key: "all"}, routing.Binding{Exchange: "x", Key: fmt.Sprintf("only.%d", i)})
		e.must(err, "SubscribeTemporary")
		subs = append(subs, s)
		names[s.Queue()] = true
	}
	if len(names) != 3 {
		e.Errorf("three temporary queues have the names %v", names)
	}
	e.publish(c, "x", msg("all", "1"), msg("only.1", "2"), msg("all", "3"))
	for i, s := range subs {
		e.ack(e.body(s, "1"))
		if i == 1 {
			e.ack(e.body(s, "2"))
		}
		e.ack(e.body(s, "3"))
	}
	e.close(subs[0])
	e.gone(other, subs[0].Queue(), e.patience())
	e.publish(other, "x", msg("all", "4"))
	e.ack(e.body(subs[1], "4"), e.body(subs[2], "4"))
	e.close(other)
	e.gone(c, subs[2].Queue(), e.patience())
	e.there(c, subs[1].Queue())
}

func (e *env) temporaryError(c *polymq.Conn, b routing.Binding) error {
	e.Helper()
	s, err := c.SubscribeTemporary(e.ctx, nil, b)
	if err == nil {
		e.close(s)
	}
	return err
}

func temporaryComesBack(e *env) {
	admin := e.open()
	e.declare(admin, routing.Exchange{Name: "x", Kind: routing.Fanout})
	through, sever := e.b.Sever(e.TB, e.namespace())
	s, err := e.openAt(through).SubscribeTemporary(e.ctx, nil, routing.Binding{Exchange: "x"})
	e.must(err, "SubscribeTemporary")
	for i := range 3 {
		body := fmt.Sprint(i)
		e.eventuallyWithin(e.again(), "the temporary queue takes messages", func() bool {
			if err := e.try(admin, "x", msg("", body)); err != nil {
				return false
			}
			ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience/2)
			defer cancel()
			for {
				d, err := s.Receive(ctx)
				if err != nil {
					if !is(err, context.DeadlineExceeded) {
						e.Fatalf("Receive after %d cuts: %v", i, err)
					}
					return false
				}
				if err := d.Ack(ctx); err != nil && !is(err, polymq.ErrLost) {
					e.Fatalf("Ack after %d cuts: %v", i, err)
				}
				if string(d.Body) == body {
					return true
				}
			}
		})
		sever()
	}
}

// waitsForQueue deletes a queue under subscribers: one that was told to goes on
// when it is there again.
func waitsForQueue(e *env) {
	c := e.open()
	e.declare(c, "q")
	s, err := c.Subscriber(e.ctx, "q", &polymq.SubscriberOptions{WaitForQueue: true})
	e.must(err, "Subscriber")
	plain := e.subscriber(c, "q", 1)
	for i := range 3 {
		e.must(c.DeleteQueue(e.ctx, "q", nil), "DeleteQueue")
		if i == 0 {
			_, err := plain.Receive(e.short())
			e.mustBe(err, "Receive of a queue that was deleted", polymq.ErrNotFound)
		}
		ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience/10)
		_, err := s.Receive(ctx)
		cancel()
		e.mustBe(err, "Receive that waits for its queue", context.DeadlineExceeded)
		e.declare(c, "q")
		e.publish(c, "", msg("q", fmt.Sprint(i)))
		e.ack(e.body(s, fmt.Sprint(i)))
	}
}

func runOfDeleted(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	s := e.subscriber(c, "q", 1)
	err := s.Run(e.short(), func(ctx context.Context, d *polymq.Delivery) error {
		return c.DeleteQueue(ctx, "q", nil)
	})
	e.mustBe(err, "Run of a queue that was deleted", polymq.ErrNotFound)
	e.says(err, "Run of a queue that was deleted", "q")
}

// autoDelete has a queue that was never consumed, and then two subscribers.
func autoDelete(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "beside", routing.Queue{Name: "q", AutoDelete: true}, to("x", "q", ""), to("x", "beside", ""))
	e.publish(c, "x", msg("", "1"))
	first, second := e.subscriber(c, "q", 1), e.subscriber(other, "q", 1)
	e.close(first)
	e.publish(c, "x", msg("", "2"))
	e.there(c, "q")
	e.close(second)
	e.gone(c, "q", e.again())
	e.publish(c, "x", msg("", "3"))
	e.has(c, "beside", "1", "2", "3")
	e.declare(c, "q")
	e.has(c, "q")
}

// expiryOf is how long queues that expire stay unused. Whoever looks after them
// may do so once a second.
func (e *env) expiryOf() time.Duration { return max(3*e.b.Patience/10, 750*time.Millisecond) }

// queueExpires declares a queue again and again: it expires when that ends, and
// its messages are no dead letters.
func queueExpires(e *env) {
	c, other := e.open(), e.open()
	d := e.expiryOf()
	e.declare(c, "dead", routing.Queue{Name: "unused", Expires: d}, "for ever")
	// Best effort, since RabbitMQ's quorum queues, which alone have safe dead
	// letters, do not take a declaration for use.
	q := toDead(routing.Queue{Expires: d, BestEffortDeadLetter: true})
	for try := 0; ; try++ {
		q.Name = fmt.Sprint("q", try)
		s, longest, err := e.keepDeclared(c, other, q)
		if longest > d/2 && try < 4 {
			continue // on a busy machine it may well have expired: another one
		}
		e.must(err, "Declare, Publish and Subscriber")
		e.body(s, "1") // it is not one that was made anew
		e.close(s)
		break
	}
	e.gone(c, "unused", e.again())
	e.gone(c, q.Name, d+e.again())
	e.has(c, "dead")
	e.there(c, "for ever")
	e.declare(c, q)
	e.ack(e.body(e.subscriber(c, q.Name, 1), e.sentinel(c, q.Name)))
}

// keepDeclared declares a queue, puts messages into it, declares it again for
// three times as long as it may be unused, and subscribes to it. longest is how
// long nobody used it, at most.
func (e *env) keepDeclared(c, other *polymq.Conn, q routing.Queue) (s *polymq.Subscriber, longest time.Duration, err error) {
	start := time.Now()
	last := start
	used := func(by time.Time) {
		longest = max(longest, time.Since(last))
		last = by
	}
	if err := c.Declare(e.ctx, topology(q)); err != nil {
		return nil, 0, err
	}
	err = e.publisher(c, "").Publish(e.short(), msg(q.Name, "1"), msg(q.Name, "2"))
	for err == nil && time.Since(start) < 3*q.Expires {
		now := time.Now()
		err = other.Declare(e.ctx, topology(q))
		used(now)
		e.pass(q.Expires / 10)
	}
	if err == nil {
		s, err = c.Subscriber(e.ctx, q.Name, &polymq.SubscriberOptions{Prefetch: 1})
	}
	used(time.Now())
	return s, longest, err
}

// queueInUseStays consumes a queue for longer than it may be unused.
func queueInUseStays(e *env) {
	c := e.open()
	d := e.expiryOf()
	e.declare(c, routing.Queue{Name: "q", Expires: d})
	s := e.subscriber(c, "q", 1)
	e.pass(3 * d)
	e.publish(c, "", msg("q", "1"))
	e.ack(e.body(s, "1"))
	e.close(s)
	e.gone(c, "q", d+e.again())
}

// crashLeavesNothing kills a process with queues of its own.
func crashLeavesNothing(e *env) {
	admin := e.open()
	e.declare(admin, routing.Exchange{Name: "x", Kind: routing.Fanout}, "beside", to("x", "beside", ""))
	through, kill := e.b.Kill(e.TB, e.namespace())
	c := e.openVictim(through)
	e.declare(c, exclusive("exclusive"), routing.Queue{Name: "auto-delete", AutoDelete: true}, to("x", "exclusive", ""))
	e.subscriber(c, "auto-delete", 1)
	s, err := c.SubscribeTemporary(e.ctx, nil, routing.Binding{Exchange: "x"})
	e.must(err, "SubscribeTemporary")
	names := []string{"exclusive", "auto-delete", s.Queue()}
	for _, name := range names {
		e.there(admin, name)
	}
	kill()
	for _, name := range names {
		e.gone(admin, name, e.leavings(admin))
	}
	e.publish(admin, "x", msg("", "1"))
	e.has(admin, "beside", "1")
	e.declare(admin, exclusive("exclusive"))
}
