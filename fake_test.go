package polymq_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// fake is a scripted backend: a test says what it answers and sees what it was
// asked.
type fake struct {
	features driver.Features
	err      error // of every topology call, Health, Publisher and Subscriber
	publish  func(ctx context.Context, batch []*driver.Publishing, wait bool)
	onSettle func(ctx context.Context, d *driver.Delivery) error
	onClose  func(ctx context.Context) // of a subscriber
	noDrain  bool
	during   func() // called while a publisher or subscriber is being made
	cfg      driver.Config

	mu       sync.Mutex
	calls    []string
	declared routing.Topology     // the last
	pending  []*driver.Publishing // what hold keeps
	sizes    []int                // of batches
	settled  []settlement
	drained  bool
	closed   atomic.Bool
	queue    chan *driver.Delivery
}

type settlement struct {
	ID      string
	Outcome driver.Outcome
	Delay   time.Duration
}

func everything() driver.Features {
	f := driver.Features{Backend: "fake 1", Support: map[driver.Feature]driver.Support{}, MaxMessageBytes: 1 << 10}
	for _, name := range driver.AllFeatures {
		f.Support[name] = driver.Native
	}
	return f
}

// newFake confirms everything at once.
func newFake() *fake {
	return &fake{
		features: everything(),
		publish: func(_ context.Context, batch []*driver.Publishing, _ bool) {
			for _, p := range batch {
				p.Resolve(nil)
			}
		},
		queue: make(chan *driver.Delivery, 1000),
	}
}

// hold leaves what is published without an outcome.
func (f *fake) hold(_ context.Context, batch []*driver.Publishing, _ bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pending = append(f.pending, batch...)
	f.sizes = append(f.sizes, len(batch))
}

func (f *fake) held() []*driver.Publishing {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.pending)
}

// deliver puts messages into the queue.
func (f *fake) deliver(ids ...string) {
	for _, id := range ids {
		f.queue <- &driver.Delivery{Message: driver.Message{ID: id, Key: "k", Body: []byte(id)}, Exchange: "x", Queue: "q", Attempt: 1}
	}
}

func (f *fake) settlements() []settlement {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.settled)
}

// count is how often the driver was asked so.
func (f *fake) count(call string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, c := range f.calls {
		if c == call {
			n++
		}
	}
	return n
}

// fail sets what calls answer.
func (f *fake) fail(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
}

func (f *fake) call(format string, args ...any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
	return f.err
}

func (f *fake) Open(_ context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	f.cfg = cfg
	if err := u.Rest(); err != nil {
		return nil, err
	}
	if err := f.call("open %s", u.Hosts[0]); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *fake) Features() driver.Features { return f.features }
func (f *fake) Declare(_ context.Context, t routing.Topology) error {
	f.declared = t
	return f.call("declare %d %d %d", len(t.Exchanges), len(t.Queues), len(t.Bindings))
}
func (f *fake) Verify(context.Context, routing.Topology) error { return f.call("verify") }
func (f *fake) Bind(_ context.Context, bs []routing.Binding) error {
	return f.call("bind %d", len(bs))
}
func (f *fake) Unbind(_ context.Context, bs []routing.Binding) error {
	return f.call("unbind %d", len(bs))
}
func (f *fake) DeleteQueue(_ context.Context, name string, o driver.DeleteOptions) error {
	return f.call("delete queue %s %v", name, o)
}
func (f *fake) DeleteExchange(_ context.Context, name string, o driver.DeleteOptions) error {
	return f.call("delete exchange %s %v", name, o)
}
func (f *fake) Topology(context.Context) (routing.Topology, error) {
	return routing.Topology{Queues: []routing.Queue{{Name: "q"}}}, f.call("topology")
}
func (f *fake) Inspect(_ context.Context, queue string) (driver.QueueInfo, error) {
	return driver.QueueInfo{Ready: 7}, f.call("inspect %s", queue)
}
func (f *fake) Purge(_ context.Context, queue string) (int, error) {
	return 7, f.call("purge %s", queue)
}
func (f *fake) Health(context.Context) error { return f.call("health") }
func (f *fake) Native() any                  { return "native" }
func (f *fake) Close(context.Context) error {
	f.closed.Store(true)
	_ = f.call("close")
	return nil
}

func (f *fake) Publisher(_ context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	if cfg.Queue != "" {
		return fakePublisher{f}, f.call("publisher to %s from %s", cfg.Queue, cfg.Exchange)
	}
	if err := f.call("publisher %q %v", cfg.Exchange, cfg.DropUnroutable); err != nil {
		return nil, err
	}
	f.between()
	return fakePublisher{f}, nil
}

func (f *fake) between() {
	if f.during != nil {
		f.during()
	}
}

type fakePublisher struct{ f *fake }

func (p fakePublisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	p.f.publish(ctx, batch, wait)
}
func (p fakePublisher) Close(context.Context) error {
	_ = p.f.call("close publisher")
	return nil
}

func (f *fake) Subscriber(_ context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	if err := f.call("subscriber %s %d", cfg.Queue, cfg.Prefetch); err != nil {
		return nil, err
	}
	f.between()
	s := &fakeSubscriber{f: f, ended: make(chan struct{}), closed: make(chan struct{})}
	if f.noDrain {
		return s, nil
	}
	return fakeDrainer{s}, nil
}

type fakeSubscriber struct {
	f     *fake
	ended chan struct{}
	once  sync.Once // ends it

	closing atomic.Bool
	closed  chan struct{}
}

type fakeDrainer struct{ *fakeSubscriber }

func (s fakeDrainer) Drain(context.Context) error {
	s.f.mu.Lock()
	s.f.drained = true
	s.f.mu.Unlock()
	s.once.Do(func() { close(s.ended) })
	return nil
}

var errDeleted = fmt.Errorf("%w: queue deleted", driver.ErrNotFound)

func (s *fakeSubscriber) Receive(ctx context.Context, buf []*driver.Delivery) (int, error) {
	select {
	case <-s.ended:
		return 0, driver.ErrClosed
	default:
	}
	select {
	case d := <-s.f.queue:
		if d == nil {
			return 0, errDeleted
		}
		buf[0] = d
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.ended:
		return 0, driver.ErrClosed
	}
	n := 1
	for n < len(buf) && len(s.f.queue) > 0 {
		buf[n] = <-s.f.queue
		n++
	}
	return n, nil
}

func (s *fakeSubscriber) Settle(ctx context.Context, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
	if s.f.onSettle != nil {
		if err := s.f.onSettle(ctx, d); err != nil {
			return err
		}
	}
	s.f.mu.Lock()
	defer s.f.mu.Unlock()
	s.f.settled = append(s.f.settled, settlement{d.Message.ID, o, delay})
	return nil
}

func (s *fakeSubscriber) Extend(context.Context, *driver.Delivery) error { return s.f.call("extend") }

func (s *fakeSubscriber) Close(ctx context.Context) error {
	s.once.Do(func() { close(s.ended) })
	if s.closing.CompareAndSwap(false, true) {
		if s.f.onClose != nil {
			s.f.onClose(ctx)
		}
		close(s.closed)
	}
	<-s.closed
	_ = s.f.call("close subscriber")
	return nil
}

// The scaffolding of most tests.

func connect(t testing.TB, f *fake) *polymq.Conn {
	t.Helper()
	c := polymq.NewConn(f, nil)
	t.Cleanup(func() { _ = c.Close(t.Context()) })
	return c
}

func publisher(t testing.TB, f *fake, opts *polymq.PublisherOptions) *polymq.Publisher {
	t.Helper()
	p, err := connect(t, f).Publisher(t.Context(), "x", opts)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func subscriber(t testing.TB, f *fake, opts *polymq.SubscriberOptions) *polymq.Subscriber {
	t.Helper()
	s, err := connect(t, f).Subscriber(t.Context(), "q", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func wantIs(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}
