package polymq_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func TestRunSettles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{Backoff: func(attempt int) time.Duration { return time.Duration(attempt) * time.Minute }})
		f.deliver("ack", "nack", "reject", "later", "self", "uncounted", "wrapped")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
				switch d.ID {
				case "nack":
					d.Attempt = 3
					return io.EOF
				case "reject":
					return polymq.Permanent(io.EOF)
				case "later":
					return polymq.RetryAfter(5*time.Second, nil)
				case "self":
					if err := d.Reject(ctx); err != nil {
						t.Error(err)
					}
					return io.EOF
				case "uncounted":
					d.Attempt = 0
					return io.EOF
				case "wrapped":
					return fmt.Errorf("handler: %w", polymq.Permanent(io.EOF))
				}
				return nil
			})
		}()
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		want := []settlement{
			{"ack", driver.Ack, 0},
			{"nack", driver.Nack, 3 * time.Minute},
			{"reject", driver.Reject, 0},
			{"later", driver.Nack, 5 * time.Second},
			{"self", driver.Reject, 0},
			{"uncounted", driver.Nack, time.Minute},
			{"wrapped", driver.Reject, 0},
		}
		if got := f.settlements(); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

func TestRunDrains(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{Concurrency: 2})
		f.deliver("1", "2", "3")
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "value"))
		done := make(chan error, 1)
		var running, most atomic.Int32
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
				most.Store(max(most.Load(), running.Add(1)))
				defer running.Add(-1)
				time.Sleep(10 * time.Second)
				if ctx.Err() != nil || ctx.Value(key{}) != "value" {
					t.Errorf("the handler's ctx: %v", ctx.Err())
				}
				return nil
			})
		}()
		synctest.Wait()
		cancel()
		synctest.Wait()
		if !f.drained {
			t.Error("what is prefetched was not given back while handlers run")
		}
		if len(done) > 0 {
			t.Fatal("Run did not wait for its handlers")
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := f.settlements(); len(got) != 2 || len(f.queue) != 1 || most.Load() != 2 {
			t.Errorf("settled %v, %d left, %d handlers at once", got, len(f.queue), most.Load())
		}
		if _, err := s.Receive(t.Context()); !errors.Is(err, polymq.ErrClosed) {
			t.Errorf("after Run: %v", err)
		}
	})
}

type key struct{}

func TestRunDrainTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.noDrain = true
		s := subscriber(t, f, &polymq.SubscriberOptions{DrainTimeout: time.Minute})
		f.deliver("1")
		ctx, cancel := context.WithCancel(t.Context())
		done, handler := make(chan error, 1), make(chan error, 1)
		began := time.Now()
		go func() {
			done <- s.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
				<-ctx.Done()
				handler <- ctx.Err()
				return nil
			})
		}()
		synctest.Wait()
		cancel()
		err := <-done
		wantIs(t, err, context.DeadlineExceeded)
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
		if !slices.Contains(f.calls, "close subscriber") {
			t.Error("what was held was not given back")
		}
		wantIs(t, <-handler, context.Canceled)
	})
}

func TestRunEndsByAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{Concurrency: 3})
		f.deliver("1")
		f.queue <- nil
		var e *polymq.Error
		err := s.Run(t.Context(), func(context.Context, *polymq.Delivery) error {
			time.Sleep(time.Second)
			return nil
		})
		wantIs(t, err, polymq.ErrNotFound)
		if !errors.As(err, &e) || e.Name != "q" {
			t.Errorf("%v", err)
		}
		if len(f.settlements()) != 1 {
			t.Error("the handler that ran was not waited for")
		}
		wantIs(t, s.Run(t.Context(), func(context.Context, *polymq.Delivery) error { return nil }), polymq.ErrClosed)
		wantIs(t, s.Run(t.Context(), nil), polymq.ErrInvalid)
	})
}

func TestRunOutlivesFailedSettlements(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.features.Support[driver.DelayedNack] = driver.Refused
		f.onSettle = func(ctx context.Context, d *driver.Delivery) error {
			deadline, ok := ctx.Deadline()
			if left := time.Until(deadline); !ok || left < 10*time.Second {
				t.Errorf("a settlement has %v", left)
			}
			time.Sleep(3 * time.Second)
			if d.Message.ID == "lost" {
				return driver.ErrLost
			}
			return nil
		}
		var log bytes.Buffer
		c := polymq.NewConn(f, &polymq.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		s, err := c.Subscriber(t.Context(), "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		f.deliver("lost", "later", "3", "4", "5", "6", "7", "8")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		err = s.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
			if d.ID == "later" {
				return polymq.RetryAfter(time.Hour, io.EOF)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got := f.settlements()
		if len(got) != 7 || got[0] != (settlement{"later", driver.Nack, 0}) {
			t.Errorf("%v", got)
		}
		for _, want := range []string{"cannot settle", "id=lost", "cannot delay", "id=later"} {
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log lacks %q:\n%s", want, &log)
			}
		}
	})
}

// A settlement that fails for now must not cost a place in the prefetch, or
// Run would stand still after as many as that.
func TestRunSettlesInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		failures := map[string]int{"ack": 3, "reject": 2, "delayed": 1}
		f.onSettle = func(_ context.Context, d *driver.Delivery) error {
			if failures[d.Message.ID] > 0 {
				failures[d.Message.ID]--
				return driver.ErrPermission
			}
			return nil
		}
		s := subscriber(t, f, nil)
		f.deliver("ack", "reject", "delayed")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		err := s.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
			switch d.ID {
			case "reject":
				return polymq.Permanent(io.EOF)
			case "delayed":
				return polymq.RetryAfter(time.Hour, io.EOF)
			}
			return nil
		})
		want := []settlement{{"ack", driver.Ack, 0}, {"reject", driver.Reject, 0}, {"delayed", driver.Nack, 0}}
		if got := f.settlements(); err != nil || !slices.Equal(got, want) {
			t.Errorf("Run: %v, settled %v; want %v", err, got, want)
		}
	})
}

// What can never be settled ends with the drain.
func TestRunGivesUpSettling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.onSettle = func(context.Context, *driver.Delivery) error { return driver.ErrPermission }
		s := subscriber(t, f, &polymq.SubscriberOptions{DrainTimeout: time.Second})
		f.deliver("never")
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		wantIs(t, s.Run(ctx, func(context.Context, *polymq.Delivery) error { return nil }), context.DeadlineExceeded)
	})
}

func TestRunGoexit(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	f.deliver("1")
	err := s.Run(t.Context(), func(context.Context, *polymq.Delivery) error {
		runtime.Goexit()
		return nil
	})
	if err == nil || !strings.Contains(err.Error(), "Goexit") {
		t.Errorf("%v", err)
	}
}

// A panic must end the process, and show where it came from.
func TestRunPanics(t *testing.T) {
	if os.Getenv("POLYMQ_TEST_PANIC") != "" {
		f := newFake()
		s := subscriber(t, f, nil)
		f.deliver("1")
		_ = s.Run(t.Context(), func(context.Context, *polymq.Delivery) error { return explode() })
		os.Exit(0)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRunPanics$")
	cmd.Env = append(os.Environ(), "POLYMQ_TEST_PANIC=1")
	out, err := cmd.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("panic: boom")) || !bytes.Contains(out, []byte("explode")) {
		t.Errorf("%v:\n%s", err, out)
	}
}

//go:noinline
func explode() error { panic("boom") }

func TestMiddlewareOrder(t *testing.T) {
	var order []string
	mark := func(name string) polymq.Middleware {
		return func(next polymq.Handler) polymq.Handler {
			return func(ctx context.Context, d *polymq.Delivery) error {
				order = append(order, name)
				return next(ctx, d)
			}
		}
	}
	f := newFake()
	s := subscriber(t, f, &polymq.SubscriberOptions{Middleware: []polymq.Middleware{mark("a"), mark("b")}})
	f.deliver("1")
	ctx, cancel := context.WithCancel(t.Context())
	if err := s.Run(ctx, func(context.Context, *polymq.Delivery) error {
		order = append(order, "h")
		cancel()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"a", "b", "h"}) {
		t.Error(order)
	}
}

func TestExponential(t *testing.T) {
	b := polymq.Exponential(time.Second, time.Minute)
	for attempt, top := range map[int]time.Duration{0: time.Second, 1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 1 << 40: time.Minute} {
		for range 100 {
			if d := b(attempt); d < top/2 || d > top {
				t.Fatalf("attempt %d: %v, want %v to %v", attempt, d, top/2, top)
			}
		}
	}
	if d := polymq.Exponential(time.Second, 1<<63-1)(100); d < 1<<61 {
		t.Errorf("the longest limit: %v", d)
	}
	if d := polymq.Exponential(0, 0)(3); d != 0 {
		t.Errorf("none: %v", d)
	}
}
