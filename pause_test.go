package polymq_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
)

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, nil)
		f.deliver("1", "2")
		held, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.Pause(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !f.drained {
			t.Error("a pause leaves what is prefetched with the subscriber")
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		_, err = s.Receive(ctx)
		wantIs(t, err, context.DeadlineExceeded)
		cancel()

		got := make(chan string, 1)
		go func() {
			d, err := s.Receive(t.Context())
			if err != nil {
				t.Error(err)
			}
			got <- d.ID
		}()
		synctest.Wait()
		if err := held.Ack(t.Context()); err != nil {
			t.Errorf("what was handed out before the pause cannot be settled: %v", err)
		}
		if n := f.count("close subscriber"); n != 1 {
			t.Errorf("with the last settlement the old consumption ends once, not %d times", n)
		}
		if len(got) > 0 {
			t.Fatal("a paused subscriber received")
		}
		for range 2 {
			if err := s.Resume(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if id := <-got; id != "2" {
			t.Errorf("got %q", id)
		}
		if n := f.count("subscriber q 32"); n != 2 {
			t.Errorf("%d consumptions, want 2", n)
		}
	})
}

// A pause that meets a call that waits.
func TestPauseWhileReceiving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, nil)
		got := make(chan error, 1)
		go func() {
			d, err := s.Receive(t.Context())
			if err == nil {
				err = d.Ack(t.Context())
			}
			got <- err
		}()
		synctest.Wait()
		if err := s.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.deliver("1")
		synctest.Wait()
		if len(got) > 0 {
			t.Fatalf("the call ended: %v", <-got)
		}
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	})
}

func TestPauseEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, nil)
		if err := s.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := make(chan error, 1)
		go func() {
			_, err := s.Receive(t.Context())
			got <- err
		}()
		synctest.Wait()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantIs(t, <-got, polymq.ErrClosed)
		wantIs(t, s.Pause(t.Context()), polymq.ErrClosed)
		wantIs(t, s.Resume(t.Context()), polymq.ErrClosed)
	})
}

func TestPauseUnsupported(t *testing.T) {
	f := newFake()
	f.noDrain = true
	s := subscriber(t, f, nil)
	wantIs(t, s.Pause(t.Context()), errors.ErrUnsupported)
	f.deliver("1")
	if _, err := s.Receive(t.Context()); err != nil {
		t.Fatalf("after a pause that was refused: %v", err)
	}
}

func TestQueueGone(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	f.queue <- nil
	_, err := s.Receive(t.Context())
	wantIs(t, err, polymq.ErrNotFound)
}

func TestWaitForQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, &polymq.SubscriberOptions{WaitForQueue: true})
		f.fail(errDeleted)
		f.queue <- nil
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := s.Receive(ctx)
		wantIs(t, err, context.DeadlineExceeded)
		f.fail(nil)
		f.deliver("1")
		if d, err := s.Receive(t.Context()); err != nil || d.ID != "1" {
			t.Fatal(err)
		}
		f.fail(polymq.ErrPermission)
		f.queue <- nil
		_, err = s.Receive(t.Context())
		wantIs(t, err, polymq.ErrPermission)
		f.fail(errDeleted)
		got := make(chan error, 1)
		go func() {
			_, err := s.Receive(t.Context())
			got <- err
		}()
		synctest.Wait()
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantIs(t, <-got, polymq.ErrClosed)
	})
}

// Run goes on over a pause, and its handlers finish during it.
func TestRunPaused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, nil)
		f.deliver("1")
		begun, finish := make(chan string), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() {
			ran <- s.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
				begun <- d.ID
				<-finish
				return nil
			})
		}()
		<-begun
		if err := s.Pause(t.Context()); err != nil {
			t.Fatal(err)
		}
		f.deliver("2")
		finish <- struct{}{}
		synctest.Wait()
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		if id := <-begun; id != "2" {
			t.Errorf("got %q", id)
		}
		close(finish)
		synctest.Wait()
		cancel()
		if err := <-ran; err != nil {
			t.Fatal(err)
		}
		ids := []string{}
		for _, st := range f.settlements() {
			ids = append(ids, st.ID)
		}
		if !slices.Equal(ids, []string{"1", "2"}) {
			t.Errorf("settled %v", ids)
		}
	})
}

// After Close there is neither a pause nor an end of one, and nothing is consumed.
func TestPauseAfterClose(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	if err := s.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 20 { // of two that are ready, select takes either
		wantIs(t, s.Resume(t.Context()), polymq.ErrClosed)
		wantIs(t, s.Pause(t.Context()), polymq.ErrClosed)
	}
	if n := f.count("subscriber q 32"); n != 1 {
		t.Errorf("%d began: %q", n, f.calls)
	}
}

// A settlement that was accepted is not undone by what the end of the old consumption
// comes to.
func TestSettledAfterPause(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	f.deliver("1")
	d, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.fail(errors.New("not just now"))
	defer f.fail(nil)
	if err := d.Ack(t.Context()); err != nil {
		t.Errorf("Ack: %v", err)
	}
}

// TestPauseOfHungBroker: Pause, and the settlement with which a consumption ends, last as
// long as their contexts, and what they began ends by itself; Close waits for that.
func TestPauseOfHungBroker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		var closing atomic.Int32
		f.onClose = func(ctx context.Context) {
			closing.Add(1)
			<-ctx.Done()
			closing.Add(-1)
		}
		s := subscriber(t, f, nil)
		f.deliver("1", "2")
		limited := func(call func(context.Context) error) error {
			begun := time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := call(ctx)
			if took := time.Since(begun); took != time.Second {
				t.Errorf("%v, with a context of a second", took)
			}
			return err
		}
		held, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Pause(t.Context()); err != nil {
			t.Errorf("Pause: %v, while something is held", err)
		}
		if err := limited(held.Ack); err != nil {
			t.Errorf("Ack: %v", err)
		}
		if err := s.Resume(t.Context()); err != nil {
			t.Fatal(err)
		}
		wantIs(t, limited(s.Pause), context.DeadlineExceeded)
		if n := closing.Load(); n != 2 {
			t.Errorf("%d consumptions are being closed, not 2", n)
		}
		wantIs(t, s.Close(t.Context()), nil)
		if n := closing.Load(); n != 0 {
			t.Errorf("%d consumptions are still being closed when the subscriber is", n)
		}
	})
}
