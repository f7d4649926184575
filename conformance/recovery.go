package conformance

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var recoveryRows = []row{
	{promise: 10, name: "restart", hooks: hookRestart, run: restartKeepsDurable},
	{promise: 21, name: "publisher", hooks: hookSever, run: publisherComesBack},
	{promise: 21, name: "subscriber", hooks: hookSever, run: subscriberComesBack},
	{promise: 21, name: "run", hooks: hookSever, run: runComesBack},
	{promise: 21, name: "calls-wait", hooks: hookPause, run: callsWaitForContext},
	{promise: 21, name: "restart", hooks: hookRestart, run: restartComesBack},
	{promise: 21, name: "declared", hooks: hookRestart, run: declaredComesBack},
}

// again is how long coming back may take.
func (e *env) again() time.Duration { return 3 * e.b.Patience }

func restartKeepsDurable(e *env) {
	url, restart := e.b.Restart(e.TB)
	c := e.openAt(url)
	t := topology(
		routing.Exchange{Name: "x", Kind: routing.Topic, Alternate: "rest"}, routing.Exchange{Name: "rest", Kind: routing.Fanout}, "q", "other",
		to("x", "q", "a.#"), routing.Binding{Exchange: "rest", ToExchange: "x"}, to("rest", "other", ""))
	e.must(c.Declare(e.ctx, t), "Declare")
	e.publish(c, "x", numbered(50, "a.b", "")...)
	restart()
	c = e.openAt(url)
	e.must(c.Verify(e.ctx, t), "Verify after the restart")
	e.publish(c, "x", msg("a.c", "after"), msg("b", "rest"))
	e.has(c, "q", append(bodies(numbered(50, "", "")), "after")...)
	e.has(c, "other", "rest")
}

func publisherComesBack(e *env) {
	admin := e.open()
	e.declare(admin, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	through, sever := e.b.Sever(e.TB, e.namespace())
	c := e.openAt(through)
	p := e.publisher(c, "x")
	for i := range 5 {
		ctx, cancel := context.WithTimeout(e.ctx, e.again())
		e.must(p.Publish(ctx, msg("", strconv.Itoa(i))), "Publish after %d cuts", i)
		cancel()
		sever()
	}
	ctx, cancel := context.WithTimeout(e.ctx, e.again())
	defer cancel()
	e.must(c.Declare(ctx, topology("late")), "Declare on the same connection after the cuts")
	e.must(c.Health(ctx), "Health after the cuts")
	seen := map[string]bool{}
	for _, d := range e.drain(admin, "q") {
		seen[string(d.Body)] = true
	}
	if len(seen) != 5 {
		e.Errorf("%d of 5 confirmed messages are there", len(seen))
	}
}

func subscriberComesBack(e *env) {
	admin := e.open()
	e.declare(admin, "q")
	through, sever := e.b.Sever(e.TB, e.namespace())
	s := e.subscriber(e.openAt(through), "q", 5)
	for i := range 4 {
		want := strconv.Itoa(i)
		e.publish(admin, "", msg("q", want))
		for {
			d := e.receiveWithin(s, e.again()+admin.Features().Lease)
			if err := d.Ack(e.short()); err != nil && !errors.Is(err, polymq.ErrLost) {
				e.Errorf("Ack: %v", err)
			}
			if string(d.Body) == want {
				break
			}
		}
		sever()
	}
}

// runComesBack cuts the connection under Run again and again: in the end every
// message was handled.
func runComesBack(e *env) {
	admin := e.open()
	e.declare(admin, "q")
	through, sever := e.b.Sever(e.TB, e.namespace())
	s, err := e.openAt(through).Subscriber(e.ctx, "q", &polymq.SubscriberOptions{Prefetch: 10, Concurrency: 3})
	e.must(err, "Subscriber")
	ctx, cancel := context.WithTimeout(e.ctx, e.again()+2*admin.Features().Lease)
	defer cancel()
	var mu sync.Mutex
	handled := map[string]bool{}
	var wg sync.WaitGroup
	wg.Go(func() {
		err := s.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			handled[string(d.Body)] = true
			if len(handled) == 90 {
				cancel()
			}
			return nil
		})
		if err != nil {
			e.Errorf("Run: %v", err)
		}
	})
	for i := range 3 {
		e.publish(admin, "", numbered(30, "q", strconv.Itoa(i)+"/")...)
		sever()
	}
	wg.Wait()
	if len(handled) != 90 {
		e.Errorf("%d of 90 messages were handled", len(handled))
	}
}

// callsWaitForContext has every call of a connection whose broker hangs end
// with its context.
func callsWaitForContext(e *env) {
	e.declare(e.open(), "q")
	through, pause, resume := e.b.Pause(e.TB, e.namespace())
	c := e.openAt(through)
	s := e.subscriber(c, "q", 1)
	p := e.publisher(c, "")
	e.must(p.Publish(e.short(), msg("q", "1")), "Publish")
	d := e.body(s, "1")
	pause()
	resumed := false
	defer func() {
		if !resumed {
			resume()
		}
	}()
	calls := []struct {
		name string
		do   func(ctx context.Context) error
	}{
		{"Declare", func(ctx context.Context) error { return c.Declare(ctx, topology("other")) }},
		{"Bind", func(ctx context.Context) error { return c.Bind(ctx, to("amq.fanout", "q", "")) }},
		{"Publish", func(ctx context.Context) error { return p.Publish(ctx, msg("q", "2")) }},
		{"Receive", func(ctx context.Context) error { _, err := s.Receive(ctx); return err }},
		{"Subscriber", func(ctx context.Context) error { _, err := c.Subscriber(ctx, "q", nil); return err }},
		{"Health", func(ctx context.Context) error { return c.Health(ctx) }},
	}
	for _, call := range calls {
		if e.returns(call.name, e.b.Patience/20, call.do) == nil {
			e.Errorf("%s returned nil while the broker hangs", call.name)
		}
	}
	resume()
	resumed = true
	ctx, cancel := context.WithTimeout(e.ctx, e.again())
	defer cancel()
	if err := d.Ack(ctx); err != nil && !errors.Is(err, polymq.ErrLost) {
		e.Errorf("Ack once the broker answers again: %v", err)
	}
	e.must(p.Publish(ctx, msg("q", "3")), "Publish once the broker answers again")
	for {
		if d := e.receiveWithin(s, e.again()); string(d.Body) == "3" {
			return
		} else if err := d.Ack(ctx); err != nil && !errors.Is(err, polymq.ErrLost) {
			e.Errorf("Ack: %v", err)
		}
	}
}

func restartComesBack(e *env) {
	url, restart := e.b.Restart(e.TB)
	c := e.openAt(url)
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	p := e.publisher(c, "x")
	s := e.subscriber(c, "q", 5)
	e.must(p.Publish(e.short(), msg("", "before")), "Publish")
	held := e.body(s, "before")
	restart()
	ctx, cancel := context.WithTimeout(e.ctx, 4*e.b.Patience)
	defer cancel()
	e.must(p.Publish(ctx, msg("", "after")), "Publish after the restart")
	if err := held.Ack(ctx); err != nil && !errors.Is(err, polymq.ErrLost) {
		e.Errorf("Ack after the restart: got %v, want nil or ErrLost", err)
	}
	for {
		d := e.receiveWithin(s, 4*e.b.Patience+c.Features().Lease)
		if err := d.Ack(ctx); err != nil && !errors.Is(err, polymq.ErrLost) {
			e.Errorf("Ack: %v", err)
		}
		if string(d.Body) == "after" {
			return
		}
	}
}

// declaredComesBack restarts a broker that forgets what is transient: whoever
// declared it finds it standing again, and no publish finds it gone.
func declaredComesBack(e *env) {
	url, restart := e.b.Restart(e.TB)
	c := e.openAt(url)
	passing := routing.Queue{Name: "passing", Transient: true}
	removed := routing.Queue{Name: "removed", Transient: true}
	err := c.Declare(e.ctx, topology(passing, removed))
	if is(err, errors.ErrUnsupported) { // there are no such queues
		passing.Transient, removed.Transient, err = false, false, c.Declare(e.ctx, topology("passing", "removed"))
	}
	e.must(err, "Declare")
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic, Transient: true}, routing.Exchange{Name: "y", Kind: routing.Fanout, Transient: true},
		"lasting", to("x", "passing", "a"), to("x", "lasting", "a"), to("x", "lasting", "b"))
	e.must(c.Bind(e.ctx, routing.Binding{Exchange: "y", ToExchange: "x"}, to("x", "removed", "a"), to("x", "passing", "b")), "Bind")
	e.must(c.Unbind(e.ctx, to("x", "passing", "b")), "Unbind")
	e.must(c.DeleteQueue(e.ctx, "removed", nil), "DeleteQueue")
	p, s := e.publisher(c, "x"), e.subscriber(c, "passing", 5)
	e.must(p.Publish(e.short(), msg("a", "before")), "Publish")
	e.ack(e.body(s, "before"))
	restart()
	ctx, cancel := context.WithTimeout(e.ctx, 4*e.b.Patience)
	defer cancel()
	e.must(p.Publish(ctx, msg("a", "1"), msg("b", "2")), "Publish after the restart")
	e.must(e.publisher(c, "y").Publish(ctx, msg("a", "3")), "Publish to an exchange bound to it")
	for _, want := range []string{"1", "3"} {
		d := e.receiveWithin(s, 4*e.b.Patience)
		if string(d.Body) != want {
			e.Fatalf("received %q, want %q", d.Body, want)
		}
		e.must(d.Ack(ctx), "Ack")
	}
	e.has(c, "lasting", "before", "1", "2", "3")
	err = c.Verify(e.ctx, topology("removed"))
	e.mustBe(err, "Verify of a queue that was deleted before", polymq.ErrNotFound)
}
