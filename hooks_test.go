package polymq_test

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

type ctxKey string

// diary writes down, in order, what the hooks of one observer are told.
type diary struct {
	name string

	mu    sync.Mutex
	lines []string
}

func (d *diary) note(ctx context.Context, format string, args ...any) {
	line := d.name + fmt.Sprintf(format, args...)
	for _, k := range []ctxKey{"publish", "process"} {
		if v := ctx.Value(k); v != nil {
			line += fmt.Sprintf(" (%s %v)", k, v)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, line)
}

// want compares what was written since the last time.
func (d *diary) want(t *testing.T, lines ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, lines) {
		t.Errorf("the hooks were told\n\t%s\nwant\n\t%s", strings.Join(d.lines, "\n\t"), strings.Join(lines, "\n\t"))
	}
	d.lines = nil
}

func (d *diary) hooks() *polymq.Hooks {
	outcomes := func(e polymq.PublishEvent) string {
		var s strings.Builder
		for _, m := range e.Messages {
			fmt.Fprintf(&s, " %s:%v", m.ID, m.Err != nil)
		}
		return s.String()
	}
	ids := func(ds []*polymq.Delivery) (ids []string) {
		for _, x := range ds {
			ids = append(ids, x.ID)
		}
		return ids
	}
	return &polymq.Hooks{
		PublishBegin: func(ctx context.Context, e polymq.PublishEvent) context.Context {
			d.note(ctx, "publish to %s, async %v: %d, %v", e.Exchange, e.Async, len(e.Messages), e.Err)
			return context.WithValue(ctx, ctxKey("publish"), d.name)
		},
		PublishEnd: func(ctx context.Context, e polymq.PublishEvent) {
			d.note(ctx, "published to %s:%s, failed %v", e.Exchange, outcomes(e), e.Err != nil)
		},
		Receive: func(ctx context.Context, e polymq.ReceiveEvent) {
			d.note(ctx, "received from %s: %v, handler %v, batch %v, failed %v", e.Queue, ids(e.Deliveries), e.Handler, e.Batch, e.Err != nil)
		},
		ProcessBegin: func(ctx context.Context, e polymq.ProcessEvent) context.Context {
			d.note(ctx, "process %s", e.Delivery.ID)
			return context.WithValue(ctx, ctxKey("process"), d.name+e.Delivery.ID)
		},
		ProcessEnd: func(ctx context.Context, e polymq.ProcessEvent) {
			d.note(ctx, "processed %s: %v", e.Delivery.ID, e.Err)
		},
		Settle: func(ctx context.Context, e polymq.SettleEvent) {
			d.note(ctx, "%v %s after %v: failed %v, done %v", e.Outcome, e.Delivery.ID, e.Delay, e.Err != nil, e.Done)
		},
		Release: func(e polymq.ReleaseEvent) { d.note(context.Background(), "%s: %d released", e.Queue, e.Count) },
		State:   func(s polymq.State, err error) { d.note(context.Background(), "%v: %v", s, err) },
	}
}

// observed is a connection of f with observers.
func observed(t testing.TB, f *fake, os ...polymq.Observer) *polymq.Conn {
	c := polymq.NewConn(f, &polymq.Options{Observers: os})
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

func observedPublisher(t testing.TB, f *fake, os ...polymq.Observer) *polymq.Publisher {
	t.Helper()
	p, err := observed(t, f, os...).Publisher(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func observedSubscriber(t testing.TB, f *fake, opts *polymq.SubscriberOptions, os ...polymq.Observer) *polymq.Subscriber {
	t.Helper()
	s, err := observed(t, f, os...).Subscriber(t.Context(), "q", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestHooksPublish(t *testing.T) {
	f := newFake()
	var d diary
	p := observedPublisher(t, f, d.hooks())
	if err := p.Publish(t.Context(), &polymq.Message{ID: "1"}, &polymq.Message{ID: "2"}); err != nil {
		t.Fatal(err)
	}
	d.want(t,
		"publish to x, async false: 2, <nil>",
		"published to x: 1:false 2:false, failed false (publish )")

	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, pub := range batch {
			pub.Resolve(driver.ErrRejected)
		}
	}
	wantIs(t, p.Publish(t.Context(), &polymq.Message{ID: "1", Key: "\n"}, nil, &polymq.Message{ID: "3"}), polymq.ErrRejected)
	d.want(t,
		"publish to x, async false: 3, <nil>",
		"published to x: 1:true :true 3:true, failed true (publish )")

	if err := p.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.want(t)
}

func TestHooksPublishAsync(t *testing.T) {
	f := newFake()
	f.publish = f.hold
	var d diary
	p := observedPublisher(t, f, d.hooks())
	r, err := p.PublishAsync(t.Context(), &polymq.Message{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	d.want(t, "publish to x, async true: 1, <nil>")
	go f.held()[0].Resolve(driver.ErrUnroutable)
	<-r.Done()
	d.want(t, "published to x: 1:true, failed true (publish )")
	_, err = p.PublishAsync(t.Context(), &polymq.Message{ID: "2", Key: "\n"})
	wantIs(t, err, polymq.ErrInvalid)
	d.want(t,
		"publish to x, async true: 1, <nil>",
		"published to x: 2:true, failed true (publish )")
}

// What a hook puts in the place of a message is sent, and the application's is
// left alone.
func TestHooksReplaceMessages(t *testing.T) {
	f := newFake()
	var sent []*driver.Message
	confirm := f.publish
	f.publish = func(ctx context.Context, batch []*driver.Publishing, wait bool) {
		for _, pub := range batch {
			m := *pub.Message
			sent = append(sent, &m)
		}
		confirm(ctx, batch, wait)
	}
	p := observedPublisher(t, f, &polymq.Hooks{PublishBegin: func(ctx context.Context, e polymq.PublishEvent) context.Context {
		m := *e.Messages[0].Message
		m.Header = polymq.Header{"added": "yes"}
		e.Messages[0].Message = &m
		return ctx
	}})
	first, second := &polymq.Message{ID: "1"}, &polymq.Message{ID: "2"}
	args := []*polymq.Message{first, second}
	if err := p.Publish(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	if args[0] != first || first.Header != nil {
		t.Error("the application's message or slice was changed")
	}
	if _, err := p.PublishAsync(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"yes", "", "yes"} {
		if got := sent[i].Header.Get("added"); got != want {
			t.Errorf("message %d was sent with %q, want %q", i, got, want)
		}
	}
}

func TestHooksReceiveAndSettle(t *testing.T) {
	f := newFake()
	var d diary
	s := observedSubscriber(t, f, nil, d.hooks())
	f.deliver("1")
	one, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	f.deliver("2", "3", "4", "5")
	batch, err := s.ReceiveBatch(t.Context(), 4)
	if err != nil {
		t.Fatal(err)
	}
	d.want(t,
		"received from q: [1], handler false, batch false, failed false",
		"received from q: [2 3 4 5], handler false, batch true, failed false")

	f.onSettle = func(context.Context, *driver.Delivery) error { return io.EOF }
	wantIs(t, one.Ack(t.Context()), io.EOF)
	f.onSettle = nil
	_ = one.Ack(t.Context())
	wantIs(t, one.Ack(t.Context()), polymq.ErrSettled)
	_ = batch[0].Nack(t.Context(), time.Second)
	_ = batch[1].Reject(t.Context())
	f.onSettle = func(context.Context, *driver.Delivery) error { return driver.ErrLost }
	wantIs(t, batch[2].Ack(t.Context()), polymq.ErrLost)
	d.want(t,
		"ack 1 after 0s: failed true, done false",
		"ack 1 after 0s: failed false, done true",
		"nack 2 after 1s: failed false, done true",
		"reject 3 after 0s: failed false, done true",
		"ack 4 after 0s: failed true, done true")

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Receive(ended)
	wantIs(t, err, context.Canceled)
	d.want(t)

	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.onSettle = func(context.Context, *driver.Delivery) error { return driver.ErrClosed }
	wantIs(t, batch[3].Ack(t.Context()), polymq.ErrClosed)
	_, err = s.Receive(t.Context())
	wantIs(t, err, polymq.ErrClosed)
	d.want(t,
		"q: 1 released",
		"ack 5 after 0s: failed true, done false",
		"received from q: [], handler false, batch false, failed true")
}

// Whatever the order in which settlements and Close come, each delivery is
// counted once.
func TestHooksCountEachDeliveryOnce(t *testing.T) {
	for range 200 {
		f := newFake()
		var mu sync.Mutex
		handed, ended := 0, 0
		s := observedSubscriber(t, f, nil, &polymq.Hooks{
			Receive: func(_ context.Context, e polymq.ReceiveEvent) {
				mu.Lock()
				handed += len(e.Deliveries)
				mu.Unlock()
			},
			Settle: func(_ context.Context, e polymq.SettleEvent) {
				mu.Lock()
				if e.Done {
					ended++
				}
				mu.Unlock()
			},
			Release: func(e polymq.ReleaseEvent) {
				mu.Lock()
				ended += e.Count
				mu.Unlock()
			},
		})
		f.deliver("1", "2", "3", "4", "5", "6")
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				d, err := s.Receive(t.Context())
				if err == nil && i > 0 {
					_ = d.Ack(t.Context())
				}
			})
		}
		wg.Go(func() { _ = s.Close(t.Context()) })
		wg.Wait()
		if handed != ended {
			t.Fatalf("%d deliveries began, %d ended", handed, ended)
		}
	}
}

func TestHooksRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var d diary
		s := observedSubscriber(t, f, &polymq.SubscriberOptions{
			Backoff: func(int) time.Duration { return time.Minute },
			Middleware: []polymq.Middleware{func(next polymq.Handler) polymq.Handler {
				return func(ctx context.Context, m *polymq.Delivery) error {
					d.note(ctx, "middleware")
					return next(ctx, m)
				}
			}},
		}, d.hooks())
		f.deliver("1", "2")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, m *polymq.Delivery) error {
				d.note(ctx, "handler")
				if m.ID == "2" {
					return io.EOF
				}
				return m.Ack(ctx)
			})
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		d.want(t,
			"received from q: [1], handler true, batch false, failed false",
			"process 1",
			"middleware (process 1)",
			"handler (process 1)",
			"ack 1 after 0s: failed false, done true (process 1)",
			"processed 1: <nil> (process 1)",
			"received from q: [2], handler true, batch false, failed false",
			"process 2",
			"middleware (process 2)",
			"handler (process 2)",
			"processed 2: EOF (process 2)",
			"nack 2 after 1m0s: failed false, done true (process 2)")
	})
}

// A handler that does not return has its end told all the same.
func TestHooksHandlerThatDoesNotReturn(t *testing.T) {
	f := newFake()
	var d diary
	s := observedSubscriber(t, f, nil, d.hooks())
	f.deliver("1")
	err := s.Run(t.Context(), func(context.Context, *polymq.Delivery) error {
		runtime.Goexit() // as t.FailNow does
		return nil
	})
	if err == nil {
		t.Fatal("Run goes on without its worker")
	}
	d.want(t,
		"received from q: [1], handler true, batch false, failed false",
		"process 1",
		"processed 1: the handler did not return: it panicked or ended its goroutine (process 1)",
		"q: 1 released")
}

// Of two observers the first is the outer one.
func TestHooksOfSeveralObservers(t *testing.T) {
	f := newFake()
	var d diary
	named := func(name string) *polymq.Hooks {
		hooks := (&diary{name: name}).hooks()
		begin, end := hooks.PublishBegin, hooks.PublishEnd
		hooks.PublishBegin = func(ctx context.Context, e polymq.PublishEvent) context.Context {
			d.note(ctx, "%s begin", name)
			return begin(ctx, e)
		}
		hooks.PublishEnd = func(ctx context.Context, e polymq.PublishEvent) {
			d.note(ctx, "%s end", name)
			end(ctx, e)
		}
		return hooks
	}
	only := &polymq.Hooks{Release: func(e polymq.ReleaseEvent) { d.note(context.Background(), "released %d", e.Count) }}
	c := observed(t, f, named("a"), nil, &polymq.Hooks{}, (*polymq.Hooks)(nil), only, named("b"))
	p, err := c.Publisher(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(t.Context(), &polymq.Message{}); err != nil {
		t.Fatal(err)
	}
	d.want(t, "a begin", "b begin (publish a)", "b end (publish b)", "a end (publish b)")

	s, err := c.Subscriber(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	f.deliver("1")
	if _, err := s.Receive(t.Context()); err != nil {
		t.Fatal(err)
	}
	_ = s.Close(t.Context())
	d.want(t, "released 1")
}

// A receipt has no outcome before the hooks have heard of it.
func TestHooksHearBeforeTheReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		heard := make(chan struct{})
		p := observedPublisher(t, f, &polymq.Hooks{PublishEnd: func(context.Context, polymq.PublishEvent) { <-heard }})
		r, err := p.PublishAsync(t.Context(), &polymq.Message{})
		if err != nil {
			t.Fatal(err)
		}
		go f.held()[0].Resolve(driver.ErrRejected)
		synctest.Wait()
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Err(); err != nil {
			t.Errorf("Err: %v", err)
		}
		wantIs(t, r.Wait(soon), context.DeadlineExceeded)
		close(heard)
		wantIs(t, r.Wait(t.Context()), polymq.ErrRejected)
		wantIs(t, r.Err(), polymq.ErrRejected)
	})
}

type observer func(polymq.ConnInfo) *polymq.Hooks

func (o observer) Observe(info polymq.ConnInfo) *polymq.Hooks { return o(info) }

func TestObserve(t *testing.T) {
	var infos []polymq.ConnInfo
	var d diary
	o := observer(func(info polymq.ConnInfo) *polymq.Hooks {
		infos = append(infos, info)
		return d.hooks()
	})
	c, err := polymq.Open(t.Context(), "faketest://user:secret@one:1,two/", &polymq.Options{Observers: []polymq.Observer{o}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(t.Context())
	observed(t, newFake(), o)
	if got := fmt.Sprint(infos); got != "[{faketest [one:1 two] } { [] fake 1}]" {
		t.Error(got)
	}
	registered.cfg.OnState(polymq.StateDisconnected, io.EOF)
	registered.cfg.OnState(polymq.StateConnected, nil)
	d.want(t, "connected: <nil>", "disconnected: EOF", "connected: <nil>")
}

// Redrive is not the application's publishing and receiving.
func TestHooksAreNotToldOfRedrive(t *testing.T) {
	f := newFake()
	var d diary
	c := observed(t, f, d.hooks())
	f.deliver("1")
	_, err := c.Redrive(t.Context(), "q", &polymq.RedriveOptions{Idle: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	d.want(t)
}
