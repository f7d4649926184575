package polymq_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
)

func TestReceive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, nil)
		f.deliver("1")
		d, err := s.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d.ID != "1" || string(d.Body) != "1" || d.Key != "k" || d.Exchange != "x" || d.Queue != "q" || d.Attempt != 1 || d.Redelivered {
			t.Errorf("%+v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = s.Receive(ctx)
		wantIs(t, err, context.DeadlineExceeded)
		f.deliver("2")
		_, err = s.Receive(ctx)
		wantIs(t, err, context.DeadlineExceeded)
		if d, err := s.Receive(t.Context()); err != nil || d.ID != "2" {
			t.Fatalf("a message was lost to a ctx that had ended: %v", err)
		}
		waiting := make(chan error, 1)
		go func() {
			_, err := s.Receive(t.Context())
			waiting <- err
		}()
		synctest.Wait()
		for range 2 {
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		wantIs(t, <-waiting, polymq.ErrClosed)
		_, err = s.ReceiveBatch(t.Context(), 1)
		wantIs(t, err, polymq.ErrClosed)
	})
}

func TestReceiveBatch(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, &polymq.SubscriberOptions{Prefetch: 3})
	_, err := s.ReceiveBatch(t.Context(), 0)
	wantIs(t, err, polymq.ErrInvalid)
	f.deliver("1", "2", "3", "4", "5")
	var got [][]string
	for range 3 {
		ds, err := s.ReceiveBatch(t.Context(), 2+len(got))
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, d := range ds {
			ids = append(ids, d.ID)
		}
		got = append(got, ids)
		if len(got) == 2 {
			f.deliver("6")
		}
	}
	if fmt.Sprint(got) != "[[1 2] [3 4 5] [6]]" {
		t.Errorf("%v", got)
	}
}

func TestDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		s := subscriber(t, f, nil)
		f.deliver("1", "2", "3")
		var ids []string
		for d, err := range s.Deliveries(t.Context()) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, d.ID)
			if d.ID == "2" {
				break
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for d, err := range s.Deliveries(ctx) {
			if err != nil {
				t.Fatalf("the end of ctx is no error: %v", err)
			}
			ids = append(ids, d.ID)
		}
		if !slices.Equal(ids, []string{"1", "2", "3"}) {
			t.Errorf("%v", ids)
		}
		f.queue <- nil
		n := 0
		for d, err := range s.Deliveries(t.Context()) {
			n++
			wantIs(t, err, polymq.ErrNotFound)
			if d != nil {
				t.Error("a delivery with an error")
			}
		}
		if n != 1 {
			t.Errorf("the error came %d times", n)
		}
	})
}

func TestSubscriberOptions(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	for _, o := range []polymq.SubscriberOptions{{Prefetch: -1}, {Concurrency: -1}, {DrainTimeout: -1}} {
		_, err := c.Subscriber(t.Context(), "q", &o)
		wantIs(t, err, polymq.ErrInvalid)
	}
	_, err := c.Subscriber(t.Context(), "", nil)
	wantIs(t, err, polymq.ErrInvalid)
	for _, o := range []*polymq.SubscriberOptions{nil, {Concurrency: 50}, {Concurrency: 50, Prefetch: 1}} {
		if _, err := c.Subscriber(t.Context(), "q", o); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"subscriber q 32", "subscriber q 50", "subscriber q 1"}; !slices.Equal(f.calls, want) {
		t.Errorf("%q", f.calls)
	}
}
