//go:build !race

package emulate

import (
	"context"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
)

// idle is a store that does nothing per message, so that what is measured is
// the emulation.
type idle struct{ *fake }

func (idle) Append(_ context.Context, parcels []*Parcel, _ bool) {
	for _, p := range parcels {
		p.Done(nil)
	}
}

type idleConsumer struct{ Consumer }

func (idleConsumer) Settle(context.Context, *Delivery, driver.Outcome, time.Duration) error {
	return nil
}

type silent struct{}

func (silent) Resolved(*driver.Publishing) {}

func TestAllocations(t *testing.T) {
	c, err := New(t.Context(), idle{newWorld().client()}, Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, c: c}
	defer b.close()
	b.declare(plain)
	p := b.publisher("")
	for _, size := range []int{1, 100} {
		batch := make([]*driver.Publishing, size)
		m := &driver.Message{Key: "a", Header: driver.Header{"h": "v"}}
		for i := range batch {
			batch[i] = &driver.Publishing{Owner: silent{}}
		}
		n := testing.AllocsPerRun(100, func() {
			for _, pb := range batch {
				pb.Reset(m, "id")
			}
			p.Publish(t.Context(), batch, true)
		})
		if n > 0 {
			t.Errorf("%v allocations for a batch of %d, want none", n, size)
		}
	}
	in := newInbox(&Queue{}, 1, time.Minute)
	s := &subscriber{q: &Queue{}, in: in, consumer: idleConsumer{}}
	d := &Delivery{}
	put, buf := []*Delivery{d}, make([]*driver.Delivery, 1)
	n := testing.AllocsPerRun(100, func() {
		in.Put(put...)
		if _, err := s.Receive(t.Context(), buf); err != nil {
			t.Fatal(err)
		}
		if err := s.Settle(t.Context(), buf[0], driver.Ack, 0); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations to receive and acknowledge, want none", n)
	}
}
