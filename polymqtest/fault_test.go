package polymqtest_test

import (
	"context"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/polymqtest"
)

// first lets f happen to the first step of its kind alone.
func first(op polymqtest.Op, f polymqtest.Fault) polymqtest.Rule {
	return func(s polymqtest.Step) polymqtest.Fault {
		if s.Op == op && s.N == 1 {
			return f
		}
		return polymqtest.Fault{}
	}
}

// attempts are those that a queue's deliveries were settled with.
func attempts(b *polymqtest.Broker, queue string) (out []int) {
	for _, s := range b.Recorder().Settlements(queue) {
		out = append(out, s.Attempt)
	}
	return out
}

// idler takes its time with each settlement.
type idler struct{}

func (idler) Observe(polymq.ConnInfo) *polymq.Hooks {
	return &polymq.Hooks{Settle: func(context.Context, polymq.SettleEvent) { time.Sleep(time.Second) }}
}

func TestFaults(t *testing.T) {
	for name, c := range map[string]struct {
		rule    polymqtest.Rule
		publish error
		handled int   // calls of the handler
		settled []int // attempts
		passed  time.Duration
	}{
		"none":                {func(polymqtest.Step) polymqtest.Fault { return polymqtest.Fault{} }, nil, 1, []int{1}, 0},
		"publish dropped":     {first(polymqtest.Publish, polymqtest.Fault{Drop: true}), polymq.ErrUnconfirmed, 0, nil, 0},
		"publish duplicated":  {first(polymqtest.Publish, polymqtest.Fault{Duplicate: true}), nil, 2, []int{1, 1}, 0},
		"publish delayed":     {first(polymqtest.Publish, polymqtest.Fault{Delay: time.Minute}), nil, 1, []int{1}, time.Minute},
		"publish cut":         {first(polymqtest.Publish, polymqtest.Fault{Disconnect: true}), nil, 1, []int{1}, 0},
		"delivery dropped":    {first(polymqtest.Deliver, polymqtest.Fault{Drop: true}), nil, 1, []int{2}, 0},
		"delivery duplicated": {first(polymqtest.Deliver, polymqtest.Fault{Duplicate: true}), nil, 2, []int{1, 1}, 0},
		"delivery delayed":    {first(polymqtest.Deliver, polymqtest.Fault{Delay: time.Minute}), nil, 1, []int{1}, time.Minute},
		"delivery cut":        {first(polymqtest.Deliver, polymqtest.Fault{Disconnect: true}), nil, 1, []int{2}, 0},
		"settlement dropped":  {first(polymqtest.Settle, polymqtest.Fault{Drop: true}), nil, 2, []int{2}, 0},
		"settlement delayed":  {first(polymqtest.Settle, polymqtest.Fault{Delay: 5 * time.Second}), nil, 1, []int{1}, 5 * time.Second},
		"settlement cut":      {first(polymqtest.Settle, polymqtest.Fault{Disconnect: true}), nil, 2, []int{2}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
				conn, err := polymq.Open(t.Context(), b.URL(), &polymq.Options{
					Observers: []polymq.Observer{idler{}, b.Recorder(), idler{}}, // before it knows, and when it does
				})
				ok(t, err)
				t.Cleanup(func() { ok(t, conn.Close(context.Background())) })
				b.Declare(conn, orders)
				b.Inject(c.rule)
				begun, handled := time.Now(), 0
				serve(t, conn, "billing", nil, func(context.Context, *polymq.Delivery) error {
					handled++
					return nil
				})
				err = publisher(t, conn, "orders").Publish(t.Context(), &polymq.Message{ID: "1", Key: "order.paid"})
				if c.publish != nil {
					is(t, err, c.publish)
				} else {
					ok(t, err)
				}
				b.Settled(conn)
				if handled != c.handled || !slices.Equal(attempts(b, "billing"), c.settled) {
					t.Errorf("handled %d times, settled with attempts %v; want %d, %v", handled, attempts(b, "billing"), c.handled, c.settled)
				}
				if passed := time.Since(begun); passed < c.passed {
					t.Errorf("%v passed, want %v", passed, c.passed)
				}
			})
		})
	}
}

func TestInjectEnds(t *testing.T) {
	inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, orders)
		pub := publisher(t, conn, "orders")
		b.Inject(func(polymqtest.Step) polymqtest.Fault { return polymqtest.Fault{Drop: true} })
		is(t, pub.Publish(t.Context(), &polymq.Message{Key: "order.paid"}), polymq.ErrUnconfirmed)
		b.Inject(nil)
		ok(t, pub.Publish(t.Context(), &polymq.Message{Key: "order.paid"}))
		wantReady(t, conn, "billing", 1)
	})
}

// Whatever goes wrong, at least once stays at least once, and a seed tells the
// same story twice.
func TestSometimes(t *testing.T) {
	story := func(seed uint64) (settled []polymqtest.Settlement) {
		inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
			conn := b.Open(nil)
			b.Declare(conn, orders)
			b.Inject(polymqtest.Sometimes(seed, polymqtest.Chances{Drop: 0.2, Delay: 0.2, Duplicate: 0.2, Disconnect: 0.1}))
			pub, confirmed := publisher(t, conn, "orders"), map[string]bool{}
			for _, id := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9"} {
				if pub.Publish(t.Context(), &polymq.Message{ID: id, Key: "order.paid"}) == nil {
					confirmed[id] = true
				}
			}
			handled := map[string]bool{}
			serve(t, conn, "billing", nil, func(_ context.Context, d *polymq.Delivery) error {
				handled[d.ID] = true
				return nil
			})
			b.Settled(conn)
			if !reflect.DeepEqual(handled, confirmed) || len(confirmed) == 0 {
				t.Errorf("confirmed %v, handled %v", confirmed, handled)
			}
			settled = b.Recorder().Settlements("")
		})
		return settled
	}
	once, again, other := story(7), story(7), story(8)
	if !slices.Equal(once, again) {
		t.Errorf("the same seed: %v, then %v", once, again)
	}
	if slices.Equal(once, other) {
		t.Error("another seed made the same faults")
	}
}

func TestDisconnect(t *testing.T) {
	inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
		var states []polymq.State
		conn := b.Open(&polymq.Options{OnState: func(s polymq.State, _ error) { states = append(states, s) }})
		b.Declare(conn, orders)
		ok(t, publisher(t, conn, "orders").Publish(t.Context(), &polymq.Message{Key: "order.paid"}))
		sub, err := conn.Subscriber(t.Context(), "billing", nil)
		ok(t, err)
		d, err := sub.Receive(t.Context())
		ok(t, err)
		b.Disconnect()
		is(t, d.Ack(t.Context()), polymq.ErrLost)
		d, err = sub.Receive(t.Context())
		ok(t, err)
		ok(t, d.Ack(t.Context()))
		b.Settled(conn)
		if !slices.Contains(states, polymq.StateDisconnected) {
			t.Errorf("states: %v", states)
		}
	})
}

// Where the receiver of a delivery that is delayed gives up, one that waits gets it.
func TestDelayedForAnother(t *testing.T) {
	inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, orders)
		sub, err := conn.Subscriber(t.Context(), "billing", nil)
		ok(t, err)
		b.Inject(first(polymqtest.Deliver, polymqtest.Fault{Delay: 5 * time.Second}))
		receive := func(d time.Duration) <-chan error {
			got := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				defer cancel()
				_, err := sub.Receive(ctx)
				got <- err
			}()
			b.Advance(time.Millisecond) // it waits
			return got
		}
		short, long := receive(2*time.Second), receive(time.Hour)
		ok(t, publisher(t, conn, "orders").Publish(t.Context(), &polymq.Message{Key: "order.paid"}))
		is(t, <-short, context.DeadlineExceeded)
		ok(t, <-long)
	})
}
