package polymq_test

import (
	"context"
	"io"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func observedSubscriber(t testing.TB, f *fake, opts *polymq.SubscriberOptions, os ...polymq.Observer) *polymq.Subscriber {
	t.Helper()
	s, err := observed(t, f, os...).Subscriber(t.Context(), "q", opts)
	if err != nil {
		t.Fatal(err)
	}
	return s
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
