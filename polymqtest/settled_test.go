package polymqtest_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

// Retries, rejects and what handlers publish themselves: Settled returns when
// all of it has come to rest, and not before.
func TestSettled(t *testing.T) {
	onEach(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, orders)
		pub := publisher(t, conn, "orders")
		serve(t, conn, "billing", atOnce, func(ctx context.Context, d *polymq.Delivery) error {
			n, _ := strconv.Atoi(d.ID)
			switch {
			case n%5 == 1 && !d.Redelivered:
				return errors.New("again")
			case n%5 == 2:
				return polymq.Permanent(errors.New("never"))
			case n%5 == 3 && d.Key == "order.paid":
				return pub.Publish(ctx, &polymq.Message{ID: d.ID + "-more", Key: "order.sent"})
			}
			return nil
		})
		serve(t, conn, "stock", atOnce, func(context.Context, *polymq.Delivery) error { return nil })
		for i := range 20 {
			key := "order.paid"
			if i < 5 {
				key = "order.new" // goes to stock, too
			}
			ok(t, pub.Publish(t.Context(), &polymq.Message{ID: strconv.Itoa(i), Key: key}))
		}
		b.Settled(conn, "graveyard")

		outcomes := map[polymq.Outcome]int{}
		for _, s := range b.Recorder().Settlements("billing") {
			outcomes[s.Outcome]++
		}
		if outcomes[polymq.OutcomeAck] != 16+3 || outcomes[polymq.OutcomeNack] != 4 || outcomes[polymq.OutcomeReject] != 4 {
			t.Errorf("billing: %v", outcomes)
		}
		if n := len(b.Recorder().Settlements("")) - len(b.Recorder().Settlements("billing")); n != 5 {
			t.Errorf("stock settled %d", n)
		}
		if n := len(b.Recorder().Published()); n != 23 {
			t.Errorf("%d messages were published", n)
		}
		wantReady(t, conn, "graveyard", 4)
	})
}

// When ctx ends first, the error names what is not done.
func TestUnsettled(t *testing.T) {
	onEach(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, orders)
		ok(t, publisher(t, conn, "orders").Publish(t.Context(), &polymq.Message{ID: "m-1", Key: "order.new"}, &polymq.Message{ID: "m-2", Key: "order.paid"}))
		sub, err := conn.Subscriber(t.Context(), "stock", nil)
		ok(t, err)
		d, err := sub.Receive(t.Context())
		ok(t, err)

		var u *polymqtest.Unsettled
		for limit := time.Second; ; limit *= 2 { // a slow machine has not had a look after the first
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			err = b.Recorder().Settled(ctx, conn)
			cancel()
			is(t, err, context.DeadlineExceeded)
			var isUnsettled bool
			if u, isUnsettled = errors.AsType[*polymqtest.Unsettled](err); !isUnsettled {
				t.Fatalf("%T", err)
			}
			if len(u.Queues) > 0 || limit > time.Minute {
				break
			}
		}
		if len(u.Held) != 1 || u.Held[0] != d || u.Queues["billing"].Ready != 2 {
			t.Errorf("%+v", u)
		}
		for _, want := range []string{`message m-1 of "stock" is delivered (attempt 1) and not settled`, `queue "billing" has 2 ready`} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("the error lacks %q: %v", want, err)
			}
		}
		ok(t, d.Ack(t.Context()))
		b.Settled(conn, "billing")
	})
}

// What was delivered and given back is not held by anybody.
func TestSettledAfterClose(t *testing.T) {
	inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, orders)
		ok(t, publisher(t, conn, "orders").Publish(t.Context(), &polymq.Message{Key: "order.paid"}))
		sub, err := conn.Subscriber(t.Context(), "billing", nil)
		ok(t, err)
		_, err = sub.Receive(t.Context())
		ok(t, err)
		ok(t, sub.Close(t.Context()))
		serve(t, conn, "billing", nil, func(context.Context, *polymq.Delivery) error { return nil })
		b.Settled(conn)
	})
}

// A namespace that is in use is not tested on, nor emptied.
func TestDeclareSparesWhatStands(t *testing.T) {
	onEach(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		ok(t, polymqtest.Standing(t.Context(), conn, orders))
		b.Declare(conn, routing.Topology{Queues: []routing.Queue{{Name: "stock"}}})
		err := polymqtest.Standing(t.Context(), conn, orders)
		if err == nil || !strings.Contains(err.Error(), `the queue "stock" stands already`) {
			t.Error(err)
		}
	})
}

// What Declare made goes with the test, also where that has closed its connection.
func TestDeclareEnds(t *testing.T) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			url := testbroker.URL(t, scheme)
			t.Setenv(polymqtest.Env, url)
			t.Run("it closes", func(t *testing.T) {
				polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
					conn := b.Open(nil)
					b.Declare(conn, orders)
					ok(t, conn.Close(t.Context()))
				})
			})
			conn, err := polymq.Open(t.Context(), url, nil)
			ok(t, err)
			defer conn.Close(context.Background())
			ok(t, polymqtest.Standing(t.Context(), conn, orders))
		})
	}
}
