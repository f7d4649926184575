//go:build !race

package polymq_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func TestPublishSpares(t *testing.T) {
	f := newFake()
	p := publisher(t, f, nil)
	header, body := polymq.Header{"a": "b", "n": int64(1)}, []byte("body")
	ctx := t.Context()
	// The memory of IDs is got for 39 at once, which AllocsPerRun rounds down.
	one := testing.AllocsPerRun(200, func() {
		if err := p.Publish(ctx, &polymq.Message{Key: "k", Header: header, Body: body}); err != nil {
			t.Fatal(err)
		}
	})
	if one > 0 {
		t.Errorf("Publish of one message allocates %v times, want never: not even the message leaves the caller's stack", one)
	}
	async := testing.AllocsPerRun(200, func() {
		if _, err := p.PublishAsync(ctx, &polymq.Message{Key: "k", Header: header, Body: body}); err != nil {
			t.Fatal(err)
		}
	})
	if async > 1 {
		t.Errorf("PublishAsync allocates %v times, want the receipt", async)
	}
}

func TestReceiveSpares(t *testing.T) {
	f := newFake()
	s := subscriber(t, f, nil)
	ctx := t.Context()
	f.deliver("1")
	held := <-f.queue
	n := testing.AllocsPerRun(100, func() {
		f.queue <- held
		if _, err := s.Receive(ctx); err != nil {
			t.Fatal(err)
		}
	})
	if n > 1 {
		t.Errorf("Receive allocates %v times, want the delivery alone", n)
	}
}

// What hooks cost: nothing where there are none, and without allocating where
// they only look. Receive's is the slice of its deliveries.
func TestHooksAllocate(t *testing.T) {
	look := &polymq.Hooks{
		PublishBegin: func(ctx context.Context, _ polymq.PublishEvent) context.Context { return ctx },
		PublishEnd:   func(context.Context, polymq.PublishEvent) {},
		Receive:      func(context.Context, polymq.ReceiveEvent) {},
		Settle:       func(context.Context, polymq.SettleEvent) {},
		Release:      func(polymq.ReleaseEvent) {},
	}
	for _, c := range []struct {
		name                    string
		observers               []polymq.Observer
		publish, async, receive float64
	}{
		{"off", nil, 0, 1, 1},
		{"nobody looks", []polymq.Observer{&polymq.Hooks{}, (*polymq.Hooks)(nil)}, 0, 1, 1},
		{"on", []polymq.Observer{look}, 0, 4, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake()
			p, s := observedPublisher(t, f, c.observers...), observedSubscriber(t, f, nil, c.observers...)
			ctx, m := context.Background(), &polymq.Message{ID: "1", Key: "k", Body: []byte("body")}
			hundred := slices.Repeat([]*polymq.Message{m}, 100)
			held := &driver.Delivery{Message: driver.Message{ID: "1"}, Queue: "q"}
			for _, x := range []struct {
				what string
				want float64
				do   func() error
			}{
				{"Publish", c.publish, func() error { return p.Publish(ctx, m) }},
				{"Publish of 100", c.publish, func() error { return p.Publish(ctx, hundred...) }},
				{"PublishAsync", c.async, func() error {
					_, err := p.PublishAsync(ctx, m)
					return err
				}},
				{"Receive and Ack", c.receive, func() error {
					f.queue <- held
					d, err := s.Receive(ctx)
					if err != nil {
						return err
					}
					return d.Ack(ctx)
				}},
			} {
				var err error
				n := testing.AllocsPerRun(200, func() { err = errors.Join(err, x.do()) })
				if err != nil {
					t.Fatal(err)
				}
				if n != x.want {
					t.Errorf("%s: %v allocations, want %v", x.what, n, x.want)
				}
			}
		})
	}
}
