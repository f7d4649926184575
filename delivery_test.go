package polymq_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func TestSettledOnce(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	f.deliver("1")
	d, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs {
		wg.Go(func() {
			switch i % 3 {
			case 0:
				errs[i] = d.Ack(t.Context())
			case 1:
				errs[i] = d.Nack(t.Context(), 0)
			case 2:
				errs[i] = d.Reject(t.Context())
			}
		})
	}
	wg.Wait()
	ok := 0
	for _, err := range errs {
		if err == nil {
			ok++
		} else {
			wantIs(t, err, polymq.ErrSettled)
		}
	}
	if ok != 1 || len(f.settlements()) != 1 {
		t.Errorf("%d settlements succeeded, %d reached the driver", ok, len(f.settlements()))
	}
	wantIs(t, d.Extend(t.Context()), polymq.ErrSettled)
}

func TestSettlementThatFailed(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	f.deliver("1", "2")
	ds, err := s.ReceiveBatch(t.Context(), 10)
	if err != nil || len(ds) != 2 {
		t.Fatal(ds, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	wantIs(t, ds[0].Ack(ended), context.Canceled)
	f.onSettle = func(ctx context.Context, _ *driver.Delivery) error { return context.DeadlineExceeded }
	wantIs(t, ds[0].Ack(t.Context()), context.DeadlineExceeded)
	f.onSettle = nil
	if err := ds[0].Nack(t.Context(), time.Second); err != nil {
		t.Errorf("it could not be tried again: %v", err)
	}
	f.onSettle = func(context.Context, *driver.Delivery) error { return fmt.Errorf("%w: cut", driver.ErrLost) }
	wantIs(t, ds[1].Ack(t.Context()), polymq.ErrLost)
	wantIs(t, ds[1].Ack(t.Context()), polymq.ErrSettled)
	if got, want := f.settlements(), (settlement{"1", driver.Nack, time.Second}); len(got) != 1 || got[0] != want {
		t.Errorf("%v", got)
	}
}

func TestNackDelay(t *testing.T) {
	f := newFake()
	f.features.Support[driver.DelayedNack] = driver.Refused
	s := subscriber(t, f, nil)
	f.deliver("1")
	d, err := s.Receive(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wantIs(t, d.Nack(t.Context(), -1), polymq.ErrInvalid)
	wantIs(t, d.Nack(t.Context(), 1), errors.ErrUnsupported)
	if d.Settled() {
		t.Error("a refused Nack settled")
	}
	if err := d.Nack(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	_, err = connect(t, f).Subscriber(t.Context(), "q", &polymq.SubscriberOptions{Backoff: polymq.Exponential(1, 2)})
	wantIs(t, err, errors.ErrUnsupported)
}

func TestDeliveryOfNobody(t *testing.T) {
	d := &polymq.Delivery{Message: &polymq.Message{}, Queue: "q"}
	wantIs(t, d.Ack(t.Context()), polymq.ErrInvalid)
	wantIs(t, d.Nack(t.Context(), 1), polymq.ErrInvalid)
	wantIs(t, d.Reject(t.Context()), polymq.ErrInvalid)
	wantIs(t, d.Extend(t.Context()), polymq.ErrInvalid)
}
