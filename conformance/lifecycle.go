package conformance

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var lifecycleRows = []row{
	{promise: 22, name: "idempotent", run: closeTwice},
	{promise: 22, name: "closed", run: closedRefuses},
	{promise: 22, name: "ends-waiting", run: closeEndsWaiting},
	{promise: 22, name: "states", run: statesEndWithClosed},
	{promise: 22, name: "goroutines", run: closeLeavesNoGoroutine},
	{promise: 22, name: "hanging-broker", hooks: hookPause, run: closeWhileHanging},
	{promise: 22, name: "deleted-under-subscriber", run: deletedUnderSubscriber},

	{promise: 24, name: "two-at-once", run: twoSideBySide},
	{promise: 24, name: "newer", hooks: hookNewer, run: newerIsRefused},
}

func closeTwice(e *env) {
	c := e.open()
	e.declare(c, "q")
	p, err := c.Publisher(e.ctx, "", nil)
	e.must(err, "Publisher")
	s := e.subscriber(c, "q", 1)
	for _, it := range []interface{ Close(context.Context) error }{p, s, c} {
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				if err := it.Close(e.short()); err != nil {
					e.Errorf("Close of a %T beside others: %v", it, err)
				}
			})
		}
		wg.Wait()
		e.must(it.Close(e.ctx), "Close of a closed %T", it)
		if err := it.Close(e.ended()); err != nil {
			e.Errorf("Close of a closed %T with an ended context: %v", it, err)
		}
	}
}

// statesEndWithClosed: who is told of states hears of the first and of the last one.
func statesEndWithClosed(e *env) {
	var mu sync.Mutex
	var states []polymq.State
	c, err := e.b.Open(e.ctx, e.namespace(), &polymq.Options{OnState: func(s polymq.State, _ error) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, s)
	}})
	e.must(err, "Open")
	e.close(c)
	mu.Lock()
	defer mu.Unlock()
	if n := len(states); n < 2 || states[0] != polymq.StateConnected || slices.Index(states, polymq.StateClosed) != n-1 {
		e.Errorf("the states of a connection that was opened and closed: got %v, want connected first, and closed once, and last", states)
	}
}

func closedRefuses(e *env) {
	c := e.open()
	e.declare(c, "q")
	p, err := c.Publisher(e.ctx, "", nil)
	e.must(err, "Publisher")
	s := e.subscriber(c, "q", 1)
	e.publish(c, "", msg("q", "1"))
	publisherCalls := func() map[string]error {
		_, async := p.PublishAsync(e.short(), msg("q", ""))
		return map[string]error{"Publish": p.Publish(e.short(), msg("q", "")), "PublishAsync": async}
	}
	want := func(errs map[string]error, of string) {
		e.Helper()
		for name, err := range errs {
			if !errors.Is(err, polymq.ErrClosed) {
				e.Errorf("%s on a closed %s: got %v, want ErrClosed", name, of, err)
			}
		}
	}
	e.close(p)
	want(publisherCalls(), "publisher")
	e.close(s)
	_, err = s.Receive(e.short())
	_, err2 := s.ReceiveBatch(e.short(), 1)
	run := s.Run(e.short(), func(context.Context, *polymq.Delivery) error { return nil })
	want(map[string]error{"Receive": err, "ReceiveBatch": err2, "Run": run}, "subscriber")

	e.close(c)
	want(publisherCalls(), "connection")
	_, pubErr := c.Publisher(e.short(), "", nil)
	_, subErr := c.Subscriber(e.short(), "q", nil)
	_, topErr := c.Topology(e.short())
	_, insErr := c.Inspect(e.short(), "q")
	_, purErr := c.Purge(e.short(), "q")
	want(map[string]error{
		"Declare": c.Declare(e.short(), topology("r")), "Verify": c.Verify(e.short(), topology("q")),
		"Bind": c.Bind(e.short(), to("amq.direct", "q", "")), "Unbind": c.Unbind(e.short(), to("amq.direct", "q", "")),
		"DeleteQueue": c.DeleteQueue(e.short(), "q", nil), "DeleteExchange": c.DeleteExchange(e.short(), "x", nil),
		"Publisher": pubErr, "Subscriber": subErr, "Topology": topErr, "Inspect": insErr, "Purge": purErr, "Health": c.Health(e.short()),
	}, "connection")
	e.has(e.open(), "q", "1")
}

// closeEndsWaiting closes under calls that wait.
func closeEndsWaiting(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	one, two := e.subscriber(c, "q", 1), e.subscriber(c, "q", 1)
	got := make(chan error, 2)
	for _, s := range []*polymq.Subscriber{one, two} {
		ctx := &asked{Context: e.ctx, yes: make(chan struct{})}
		go func() {
			_, err := s.Receive(ctx)
			got <- err
		}()
		// Close before it waits would find nothing to end.
		select {
		case <-ctx.yes:
		case <-time.After(e.b.Patience / 4):
		}
	}
	ends := func(what string) {
		e.Helper()
		select {
		case err := <-got:
			e.mustBe(err, "Receive ended by Close of the "+what, polymq.ErrClosed)
		case <-time.After(e.patience()):
			e.Fatalf("Close of the %s does not end Receive", what)
		}
	}
	e.close(one)
	ends("subscriber")
	e.close(c)
	ends("connection")
	e.publish(other, "", msg("q", "for the next"))
	e.has(other, "q", "for the next")
}

// asked is a context that tells when somebody waits for its end.
type asked struct {
	context.Context
	once sync.Once
	yes  chan struct{}
}

func (c *asked) Done() <-chan struct{} {
	c.once.Do(func() { close(c.yes) })
	return c.Context.Done()
}

// closeLeavesNoGoroutine counts goroutines of this library before and after.
func closeLeavesNoGoroutine(e *env) {
	e.declare(e.open(), routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	before, known := len(goroutines()), map[string]bool{}
	for _, stack := range stacks() {
		known[goroutineOf(stack)] = true // also what is in the client's code at this moment
	}
	for i := range 4 {
		c := e.open()
		p := e.publisher(c, "x")
		e.must(p.Publish(e.short(), numbered(20, "", "")...), "Publish")
		_, err := p.PublishAsync(e.short(), msg("", "async"))
		e.must(err, "PublishAsync")
		s := e.subscriber(c, "q", 10)
		e.nack(e.receive(s), 0)
		e.ack(e.receive(s))
		e.receive(s)
		ctx, cancel := context.WithCancel(e.ctx)
		e.must(s.Run(ctx, func(context.Context, *polymq.Delivery) error { cancel(); return nil }), "Run")
		cancel()
		s = e.subscriber(c, "q", 3)
		e.receive(s)
		if i%2 == 0 {
			e.close(s)
			e.close(p)
		}
		e.close(c)
	}
	deadline := time.Now().Add(e.b.Patience)
	for {
		now := goroutines()
		if len(now) <= before || !slices.ContainsFunc(now, func(stack string) bool { return !known[goroutineOf(stack)] }) {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("%d goroutines of the library before, %d after every connection was closed:\n%s", before, len(now), strings.Join(now, "\n\n"))
		}
		time.Sleep(e.b.Patience / 200)
	}
}

// goroutines are the stacks in which this library has a hand, but for those of
// tests.
func goroutines() []string {
	return slices.DeleteFunc(stacks(), func(stack string) bool {
		return !strings.Contains(stack, "polymq") || strings.Contains(stack, "polymq/conformance.") || strings.Contains(stack, "testing.")
	})
}

// goroutineOf is the goroutine that a stack is of: "goroutine 7".
func goroutineOf(stack string) string {
	of, _, _ := strings.Cut(stack, " [")
	return of
}

// stacks are those of all goroutines.
func stacks() []string {
	buf := make([]byte, 1<<20)
	for n := runtime.Stack(buf, true); n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	buf = buf[:runtime.Stack(buf, true)]
	return strings.Split(strings.TrimSpace(string(buf)), "\n\n")
}

func closeWhileHanging(e *env) {
	e.declare(e.open(), "q")
	through, pause, resume := e.b.Pause(e.TB, e.namespace())
	c := e.openVictim(through)
	e.publish(c, "", msg("q", "1"))
	e.receive(e.subscriber(c, "q", 1))
	_, err := e.publisher(c, "").PublishAsync(e.short(), msg("q", "2"))
	e.must(err, "PublishAsync")
	pause()
	defer resume()
	_ = e.returns("Close", e.b.Patience/10, c.Close)
}

// deletedUnderSubscriber deletes a queue that is consumed.
func deletedUnderSubscriber(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(3, "q", "")...)
	s := e.subscriber(other, "q", 1)
	d := e.body(s, "0")
	e.must(c.DeleteQueue(e.ctx, "q", nil), "DeleteQueue")
	_, err := s.Receive(e.short())
	e.mustBe(err, "Receive once the queue is deleted", polymq.ErrNotFound)
	if err := d.Ack(e.short()); err != nil && !is(err, polymq.ErrLost, polymq.ErrNotFound) {
		e.Errorf("Ack once the queue is deleted: got %v", err)
	}
	e.close(s)
	e.declare(c, "q")
	e.has(other, "q")
}

// twoSideBySide has connections of their own age work on one namespace.
func twoSideBySide(e *env) {
	var conns []*polymq.Conn
	for range 3 {
		conns = append(conns, e.open())
	}
	for i, c := range conns {
		q := "q" + strconv.Itoa(i)
		e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, q, to("x", q, ""))
		e.publish(c, "x", msg("", q))
	}
	for i := range conns {
		e.has(conns[(i+1)%3], "q"+strconv.Itoa(i), []string{"q0", "q1", "q2"}[i:]...)
	}
}

func newerIsRefused(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	e.publish(c, "x", msg("", "1"))
	e.close(c)
	e.b.Newer(e.TB, e.namespace())
	for range 2 { // nor is it rewritten, so that the second try would succeed
		c, err := e.b.Open(e.ctx, e.namespace(), nil)
		if err != nil {
			continue
		}
		if err := c.Declare(e.ctx, topology("other")); err == nil {
			e.Errorf("Declare in a namespace of a newer version returned nil")
		}
		p, err := c.Publisher(e.ctx, "x", nil)
		if err == nil {
			err = p.Publish(e.short(), msg("", "2"))
		}
		if err == nil {
			e.Errorf("Publish in a namespace of a newer version returned nil")
		}
		e.close(c)
	}
}
