package conformance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// env is what a row works with: a test, a fresh namespace, and the suite's
// words for the steps that rows are made of. Each step fails the row itself.
type env struct {
	testing.TB
	b *Backend
	// ctx ends with the row, and long after anything in it should have.
	ctx    context.Context
	cancel context.CancelFunc

	url       string
	pubs      map[pubKey]*polymq.Publisher
	sentinels int
}

type pubKey struct {
	conn     *polymq.Conn
	exchange string
}

func newEnv(tb testing.TB, b *Backend) *env {
	e := &env{TB: tb, b: b, pubs: map[pubKey]*polymq.Publisher{}}
	e.ctx, e.cancel = context.WithTimeout(tb.Context(), 24*b.Patience)
	return e
}

// namespace is the URL of the row's own namespace.
func (e *env) namespace() string {
	if e.url == "" {
		e.url = e.b.Namespace(e.TB)
	}
	return e.url
}

// open makes one more connection to the row's namespace.
func (e *env) open() *polymq.Conn {
	e.Helper()
	return e.openAt(e.namespace())
}

func (e *env) openAt(url string) *polymq.Conn {
	e.Helper()
	c := e.openVictim(url)
	e.Cleanup(func() { e.close(c) })
	return c
}

// openVictim makes a connection that need not close well.
func (e *env) openVictim(url string) *polymq.Conn {
	e.Helper()
	c, err := e.b.Open(e.ctx, url, nil)
	e.must(err, "Open")
	e.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), e.b.Patience)
		defer cancel()
		_ = c.Close(ctx) // of a connection that the row has killed
	})
	return c
}

func (e *env) close(c interface{ Close(context.Context) error }) {
	e.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*e.b.Patience)
	defer cancel()
	if err := c.Close(ctx); err != nil {
		e.Errorf("Close: %v", err)
	}
}

// patience is how long a row waits for what must come.
func (e *env) patience() time.Duration { return time.Duration(e.b.waits) * e.b.Patience }

// short is a context that ends when the row's patience does.
func (e *env) short() context.Context {
	ctx, cancel := context.WithTimeout(e.ctx, e.patience())
	e.Cleanup(cancel)
	return ctx
}

// ended is a context that has ended.
func (e *env) ended() context.Context {
	ctx, cancel := context.WithCancel(e.ctx)
	cancel()
	return ctx
}

func (e *env) must(err error, what string, args ...any) {
	e.Helper()
	if err != nil {
		e.Fatalf("%s: %v", fmt.Sprintf(what, args...), err)
	}
}

// mustBe wants an error that is one of those named.
func (e *env) mustBe(err error, what string, oneOf ...error) {
	e.Helper()
	if !is(err, oneOf...) {
		e.Fatalf("%s: got error %v, want %v", what, err, oneOf)
	}
}

func is(err error, oneOf ...error) bool {
	return slices.ContainsFunc(oneOf, func(target error) bool { return errors.Is(err, target) })
}

// declare makes elements of a topology, in the order in which they are given.
func (e *env) declare(c *polymq.Conn, elements ...any) {
	e.Helper()
	e.must(c.Declare(e.ctx, topology(elements...)), "Declare")
}

// topology puts exchanges, queues and bindings together; a string is the name
// of a plain queue.
func topology(elements ...any) routing.Topology {
	var t routing.Topology
	for _, el := range elements {
		switch el := el.(type) {
		case string:
			t.Queues = append(t.Queues, routing.Queue{Name: el})
		case routing.Exchange:
			t.Exchanges = append(t.Exchanges, el)
		case routing.Queue:
			t.Queues = append(t.Queues, el)
		case routing.Binding:
			t.Bindings = append(t.Bindings, el)
		default:
			panic(fmt.Sprintf("conformance: %T is no element of a topology", el))
		}
	}
	return t
}

// to is a binding from an exchange to a queue.
func to(exchange, queue, key string) routing.Binding {
	return routing.Binding{Exchange: exchange, Queue: queue, Key: key}
}

// msg is a message with a key and a body.
func msg(key, body string) *polymq.Message {
	return &polymq.Message{Key: key, Body: []byte(body)}
}

// numbered is n messages with one key, whose bodies are prefix0, prefix1, …
func numbered(n int, key, prefix string) []*polymq.Message {
	ms := make([]*polymq.Message, n)
	for i := range ms {
		ms[i] = msg(key, prefix+strconv.Itoa(i))
	}
	return ms
}

// bodies is the bodies of messages.
func bodies(ms []*polymq.Message) []string {
	out := make([]string, len(ms))
	for i, m := range ms {
		out[i] = string(m.Body)
	}
	return out
}

// publisher is the connection's publisher to an exchange; asked for twice, it
// is the same one.
func (e *env) publisher(c *polymq.Conn, exchange string) *polymq.Publisher {
	e.Helper()
	k := pubKey{c, exchange}
	if p := e.pubs[k]; p != nil {
		return p
	}
	p, err := c.Publisher(e.ctx, exchange, nil)
	e.must(err, "Publisher(%q)", exchange)
	e.pubs[k] = p
	return p
}

// try publishes one message and returns the outcome.
func (e *env) try(c *polymq.Conn, exchange string, m *polymq.Message) error {
	e.Helper()
	return e.publisher(c, exchange).Publish(e.short(), m)
}

// publish publishes messages, all of which must be confirmed.
func (e *env) publish(c *polymq.Conn, exchange string, ms ...*polymq.Message) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, 4*e.b.Patience)
	defer cancel()
	if err := e.publisher(c, exchange).Publish(ctx, ms...); err != nil {
		e.Fatalf("Publish of %d messages to exchange %q (first key %q): %v", len(ms), exchange, ms[0].Key, err)
	}
}

func (e *env) subscriber(c *polymq.Conn, queue string, prefetch int) *polymq.Subscriber {
	e.Helper()
	s, err := c.Subscriber(e.ctx, queue, &polymq.SubscriberOptions{Prefetch: prefetch})
	e.must(err, "Subscriber(%q)", queue)
	return s
}

// receive waits for the next message.
func (e *env) receive(s *polymq.Subscriber) *polymq.Delivery {
	e.Helper()
	return e.receiveWithin(s, e.patience())
}

func (e *env) receiveWithin(s *polymq.Subscriber, patience time.Duration) *polymq.Delivery {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	d, err := s.Receive(ctx)
	if err != nil {
		e.Fatalf("Receive: no message within %v: %v", patience, err)
	}
	return d
}

// receiveN waits for n messages.
func (e *env) receiveN(s *polymq.Subscriber, n int) []*polymq.Delivery {
	e.Helper()
	ds := make([]*polymq.Delivery, n)
	for i := range ds {
		ds[i] = e.receive(s)
	}
	return ds
}

// body receives a message, which must have this body.
func (e *env) body(s *polymq.Subscriber, want string) *polymq.Delivery {
	e.Helper()
	d := e.receive(s)
	if string(d.Body) != want {
		e.Fatalf("received %.60q, want %.60q", d.Body, want)
	}
	return d
}

func (e *env) ack(ds ...*polymq.Delivery) {
	e.Helper()
	for _, d := range ds {
		e.must(d.Ack(e.ctx), "Ack of %.60q", d.Body)
	}
}

func (e *env) nack(d *polymq.Delivery, delay time.Duration) {
	e.Helper()
	e.must(d.Nack(e.ctx, delay), "Nack of %.60q", d.Body)
}

func (e *env) reject(d *polymq.Delivery) {
	e.Helper()
	e.must(d.Reject(e.ctx), "Reject of %.60q", d.Body)
}

// sentinel puts a message behind everything that the queue has and returns its
// body.
func (e *env) sentinel(c *polymq.Conn, queue string) string {
	e.Helper()
	e.sentinels++
	body := fmt.Sprintf("sentinel %d", e.sentinels)
	e.publish(c, "", msg(queue, body))
	return body
}

// drain empties a queue: it puts a sentinel behind what is there and takes all
// that comes before it.
func (e *env) drain(c *polymq.Conn, queue string) []*polymq.Delivery {
	e.Helper()
	return e.takeUntil(c, queue, e.sentinel(c, queue))
}

// takeUntil empties a queue up to a sentinel that is already there.
func (e *env) takeUntil(c *polymq.Conn, queue, sentinel string) []*polymq.Delivery {
	e.Helper()
	s := e.subscriber(c, queue, 100)
	defer e.close(s)
	var ds []*polymq.Delivery
	for {
		d := e.receive(s)
		e.ack(d)
		if string(d.Body) == sentinel {
			return ds
		}
		ds = append(ds, d)
	}
}

// has wants a queue to have messages with these bodies, in this order and no
// others, and empties it.
func (e *env) has(c *polymq.Conn, queue string, want ...string) {
	e.Helper()
	e.equalBodies(queue, e.drain(c, queue), want)
}

func (e *env) equalBodies(queue string, ds []*polymq.Delivery, want []string) {
	e.Helper()
	got := make([]string, len(ds))
	for i, d := range ds {
		got[i] = string(d.Body)
	}
	if !slices.Equal(got, want) {
		e.Fatalf("queue %q: %s", queue, difference(got, want))
	}
}

// hasAll is has without regard to the order.
func (e *env) hasAll(c *polymq.Conn, queue string, want []string) {
	e.Helper()
	ds := e.drain(c, queue)
	got := make([]string, len(ds))
	for i, d := range ds {
		got[i] = string(d.Body)
	}
	want = slices.Sorted(slices.Values(want))
	slices.Sort(got)
	if !slices.Equal(got, want) {
		e.Fatalf("queue %q: %s", queue, difference(got, want))
	}
}

// difference says where two lists part.
func difference(got, want []string) string {
	i := 0
	for i < len(got) && i < len(want) && got[i] == want[i] {
		i++
	}
	at := func(s []string) string {
		if i == len(s) {
			return "the end"
		}
		return fmt.Sprintf("%.80q", s[i])
	}
	return fmt.Sprintf("got %d messages, want %d; at index %d got %s, want %s", len(got), len(want), i, at(got), at(want))
}

// eventually tries until ok, or until the row's patience ends.
func (e *env) eventually(what string, ok func() bool) {
	e.Helper()
	e.eventuallyWithin(e.patience(), what, ok)
}

func (e *env) eventuallyWithin(patience time.Duration, what string, ok func() bool) {
	e.Helper()
	ctx, cancel := context.WithTimeout(e.ctx, patience)
	defer cancel()
	for !ok() {
		select {
		case <-ctx.Done():
			e.Fatalf("not within %v: %s", patience, what)
		case <-time.After(e.b.Patience / 200):
		}
	}
}

// failures takes a publish error apart: the outcome of each index that was not
// confirmed.
func (e *env) failures(err error) map[int]polymq.Failure {
	e.Helper()
	var pe *polymq.PublishError
	if !errors.As(err, &pe) {
		e.Fatalf("Publish: got error %v (%T), want a *polymq.PublishError", err, err)
	}
	byIndex := map[int]polymq.Failure{}
	for _, f := range pe.Failures {
		if _, twice := byIndex[f.Index]; twice {
			e.Fatalf("the PublishError names index %d twice", f.Index)
		}
		byIndex[f.Index] = f
	}
	return byIndex
}
