package nats

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

func testConfig(t testing.TB) driver.Config {
	return driver.Config{Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), OnState: func(driver.State, error) {}}
}

func open(t testing.TB, url string) driver.Conn {
	t.Helper()
	return emulated(t, openRaw(t, url))
}

func emulated(t testing.TB, s *store) driver.Conn {
	t.Helper()
	c, err := emulate.New(t.Context(), s, emulate.Config{Logger: s.cfg.Logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func openRaw(t testing.TB, url string) *store {
	t.Helper()
	u, err := driver.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	s, err := openStore(ctx, u, testConfig(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// within is a context that ends long after whatever it is for should be done.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func declare(t testing.TB, c driver.Conn, qs ...routing.Queue) {
	t.Helper()
	if err := c.Declare(within(t), routing.Topology{Queues: qs}); err != nil {
		t.Fatal(err)
	}
}

// outcome hears of publishings.
type outcome struct {
	mu   sync.Mutex
	left int
	done chan struct{}
}

func (o *outcome) Resolved(*driver.Publishing) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.left--; o.left == 0 {
		close(o.done)
	}
}

// publish sends messages to the default exchange and waits for the outcomes.
func publish(t testing.TB, p driver.Publisher, queue string, ids ...string) []error {
	t.Helper()
	o := &outcome{left: len(ids), done: make(chan struct{})}
	batch := make([]*driver.Publishing, len(ids))
	for i, id := range ids {
		batch[i] = &driver.Publishing{Message: &driver.Message{Key: queue, Body: []byte(id)}, ID: id, Owner: o}
	}
	ctx := within(t)
	p.Publish(ctx, batch, true)
	select {
	case <-o.done:
	case <-ctx.Done():
		t.Fatal("publishings were not resolved")
	}
	errs := make([]error, len(ids))
	for i, p := range batch {
		errs[i] = p.Err()
	}
	return errs
}

func mustPublish(t testing.TB, p driver.Publisher, queue string, ids ...string) {
	t.Helper()
	for i, err := range publish(t, p, queue, ids...) {
		if err != nil {
			t.Fatalf("publishing %s: %v", ids[i], err)
		}
	}
}

func publisherOf(t testing.TB, c driver.Conn) driver.Publisher {
	t.Helper()
	p, err := c.Publisher(within(t), driver.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func subscribe(t testing.TB, c driver.Conn, queue string, prefetch int) driver.Subscriber {
	t.Helper()
	s, err := c.Subscriber(within(t), driver.SubscriberConfig{Queue: queue, Prefetch: prefetch})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// receive takes n deliveries.
func receive(t testing.TB, s driver.Subscriber, n int) []*driver.Delivery {
	t.Helper()
	var ds []*driver.Delivery
	buf := make([]*driver.Delivery, n)
	for len(ds) < n {
		k, err := s.Receive(within(t), buf[:n-len(ds)])
		if err != nil {
			t.Fatalf("after %d of %d deliveries: %v", len(ds), n, err)
		}
		ds = append(ds, buf[:k]...)
	}
	return ds
}

func numbered(prefix string, from, to int) []string {
	var ids []string
	for i := from; i < to; i++ {
		ids = append(ids, fmt.Sprintf("%s%d", prefix, i))
	}
	return ids
}

func settle(t testing.TB, s driver.Subscriber, d *driver.Delivery, o driver.Outcome, delay time.Duration) {
	t.Helper()
	if err := s.Settle(within(t), d, o, delay); err != nil {
		t.Fatal(err)
	}
}

// withLeases runs a test that needs a short lease with longer and longer ones, until it
// passes: a process that stands still for longer than a lease loses what it holds. What
// fails with each of them has another reason.
func withLeases(t *testing.T, test func(t testing.TB, lease time.Duration)) {
	t.Helper()
	for lease := time.Second; lease <= 8*time.Second; lease *= 2 {
		try := &trial{TB: t}
		done := make(chan struct{})
		go func() { // which FailNow ends
			defer close(done)
			test(try, lease)
		}()
		<-done
		if !try.failed.Load() {
			return
		}
		t.Logf("it failed with a lease of %v", lease)
	}
	t.Error("it failed with each lease")
}

// trial is a testing.TB whose failures are noted, not reported. Its clean up is the real
// test's.
type trial struct {
	testing.TB
	failed atomic.Bool
}

func (t *trial) Fail()                             { t.failed.Store(true) }
func (t *trial) Failed() bool                      { return t.failed.Load() }
func (t *trial) FailNow()                          { t.Fail(); runtime.Goexit() }
func (t *trial) Error(args ...any)                 { t.Log(args...); t.Fail() }
func (t *trial) Errorf(format string, args ...any) { t.Logf(format, args...); t.Fail() }
func (t *trial) Fatal(args ...any)                 { t.Log(args...); t.FailNow() }
func (t *trial) Fatalf(format string, args ...any) { t.Logf(format, args...); t.FailNow() }
