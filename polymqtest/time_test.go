package polymqtest_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

func TestAdvance(t *testing.T) {
	inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, routing.Topology{
			Queues: []routing.Queue{
				{Name: "waiting", TTL: time.Hour, DeadLetterExchange: "amq.fanout"},
				{Name: "graveyard"},
				{Name: "passing", Expires: 10 * time.Minute},
			},
			Bindings: []routing.Binding{{Exchange: "amq.fanout", Queue: "graveyard"}},
		})
		pub := publisher(t, conn, "")
		ok(t, pub.Publish(t.Context(), &polymq.Message{Key: "waiting"}, &polymq.Message{Key: "waiting", Delay: 20 * time.Minute}))
		wantReady(t, conn, "waiting", 1)
		b.Advance(20*time.Minute - time.Second)
		wantReady(t, conn, "waiting", 1)
		b.Advance(2 * time.Second)
		wantReady(t, conn, "waiting", 2)
		_, err := conn.Inspect(t.Context(), "passing")
		is(t, err, polymq.ErrNotFound)
		b.Advance(40 * time.Minute)
		wantReady(t, conn, "waiting", 1)
		wantReady(t, conn, "graveyard", 1)
		b.Advance(20 * time.Minute)
		wantReady(t, conn, "graveyard", 2)
	})
}

// Settled lets the time of backoffs, delays and deaths pass by itself.
func TestSettledPassesTime(t *testing.T) {
	inMemory(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, routing.Topology{
			Queues:   []routing.Queue{{Name: "work", MaxAttempts: 5, DeadLetterExchange: "amq.fanout"}, {Name: "graveyard"}},
			Bindings: []routing.Binding{{Exchange: "amq.fanout", Queue: "graveyard"}},
		})
		begun := time.Now()
		serve(t, conn, "work", &polymq.SubscriberOptions{Backoff: func(int) time.Duration { return 10 * time.Second }},
			func(context.Context, *polymq.Delivery) error { return errors.New("no") })
		ok(t, publisher(t, conn, "").Publish(t.Context(), &polymq.Message{ID: "1", Key: "work", Delay: time.Minute}))
		b.Settled(conn, "graveyard")
		wantReady(t, conn, "graveyard", 1)
		if n := len(b.Recorder().Settlements("work")); n != 5 {
			t.Errorf("%d attempts", n)
		}
		if passed := time.Since(begun); passed < time.Minute+40*time.Second {
			t.Errorf("only %v of virtual time have passed", passed)
		}
	})
}
