package nats

import (
	"context"
	"errors"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestDrain: what was not handed out goes to others at once and uncounted, and
// what was can be settled still.
func TestDrain(t *testing.T) {
	for name, q := range map[string]routing.Queue{"plain": {Name: "q"}, "kept": {Name: "q", MaxPriority: 1}} {
		t.Run(name, func(t *testing.T) {
			url := testbroker.URL(t, "nats")
			c := open(t, url)
			declare(t, c, q)
			mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, 8)...)
			s := subscribe(t, c, "q", 6)
			ds := receive(t, s, 2)
			for inspect(t, c, "q").Unsettled < 6 {
			}
			if err := s.(driver.Drainer).Drain(within(t)); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Receive(within(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrClosed) {
				t.Fatal(err)
			}
			other := subscribe(t, open(t, url), "q", 10)
			for i, d := range receive(t, other, 6) {
				if want := numbered("m", 2, 8)[i]; d.Message.ID != want || d.Attempt != 1 {
					t.Fatalf("%s, attempt %d; want %s", d.Message.ID, d.Attempt, want)
				}
				settle(t, other, d, driver.Ack, 0)
			}
			if err := s.Extend(within(t), ds[0]); err != nil {
				t.Fatal(err)
			}
			settle(t, s, ds[0], driver.Ack, 0)
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			if d := receive(t, other, 1)[0]; d.Message.ID != "m1" || d.Attempt != 2 {
				t.Fatalf("%s, attempt %d", d.Message.ID, d.Attempt)
			}
		})
	}
}

// TestDrainOfDeleted: where the queue is gone there is nothing to give back to,
// and nothing to wait for.
func TestDrainOfDeleted(t *testing.T) {
	for name, q := range map[string]routing.Queue{"plain": {Name: "q"}, "kept": {Name: "q", MaxPriority: 1}} {
		t.Run(name, func(t *testing.T) {
			c := open(t, testbroker.URL(t, "nats"))
			declare(t, c, q)
			mustPublish(t, publisherOf(t, c), "q", "m0", "m1")
			s := subscribe(t, c, "q", 2)
			receive(t, s, 1)
			if err := c.DeleteQueue(within(t), "q", driver.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), closeTimeout/3)
			defer cancel()
			if err := s.(driver.Drainer).Drain(ctx); err != nil {
				t.Errorf("drain: %v", err)
			}
			if err := s.Close(ctx); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}
