package otelpolymq_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/internal/testbroker"
	"go.opentelemetry.io/otel/attribute"
)

func TestMetrics(t *testing.T) {
	onEach(t, func(t *testing.T, url string) {
		s := newScene(t, url, nil)
		system := attribute.String("messaging.system", systemOf(url))
		orders, billing := attribute.String("messaging.destination.template", "orders"), attribute.String("messaging.destination.template", "billing")
		op := func(name string) attribute.KeyValue { return attribute.String("messaging.operation.name", name) }

		pub := s.publisher("orders")
		s.do(pub.Publish(s.ctx,
			&polymq.Message{ID: "ack", Key: "order.a", Time: time.Now().Add(-time.Minute)},
			&polymq.Message{ID: "nack", Key: "order.b"},
			&polymq.Message{ID: "reject", Key: "order.c"}))
		if err := pub.Publish(s.ctx, &polymq.Message{Key: "nowhere"}); !errors.Is(err, polymq.ErrUnroutable) {
			t.Fatal(err)
		}
		s.wantNumber(4, "messaging.client.sent.messages", system, orders, op("publish"))
		s.wantNumber(1, "messaging.client.sent.messages", system, attribute.String("error.type", "unroutable"))
		s.wantNumber(2, "messaging.client.operation.duration", system, orders, op("publish"), attribute.String("messaging.operation.type", "send"))
		s.wantNumber(0, "polymq.producer.in_flight", system, orders)

		s.run(s.ctx, "billing", 4, func(ctx context.Context, d *polymq.Delivery) error {
			if n, _ := s.number("polymq.consumer.in_flight", billing); n != 1 {
				t.Errorf("%d in flight while one is worked on", n)
			}
			switch {
			case d.ID == "reject":
				return polymq.Permanent(errors.New("unfit"))
			case d.ID == "nack" && !d.Redelivered:
				return polymq.RetryAfter(0, nil)
			}
			return nil
		})
		s.wantNumber(4, "messaging.client.consumed.messages", system, billing)
		s.wantNumber(1, "polymq.client.redelivered.messages", system, billing)
		s.wantNumber(4, "messaging.process.duration", system, billing)
		s.wantNumber(2, "polymq.client.settled.messages", system, billing, op("ack"))
		s.wantNumber(1, "polymq.client.settled.messages", system, billing, op("nack"))
		s.wantNumber(1, "polymq.client.settled.messages", system, billing, op("reject"))
		s.wantNumber(2, "messaging.client.operation.duration", billing, op("ack"), attribute.String("messaging.operation.type", "settle"))
		s.wantNumber(1, "polymq.message.time_in_queue", system, billing)
		s.wantNumber(0, "polymq.consumer.in_flight", system, billing)
		if _, found := s.number("polymq.client.reconnects"); found {
			t.Error("a reconnect is counted before the first")
		}
	})
}

// What a subscriber gives back at its end is in flight no longer.
func TestInFlightAfterClose(t *testing.T) {
	s := newScene(t, testbroker.URL(t, "mem"), nil)
	s.do(s.publisher("").Publish(s.ctx, &polymq.Message{Key: "plain"}, &polymq.Message{Key: "plain"}))
	sub := s.subscriber("plain", nil)
	for range 2 {
		_, err := sub.Receive(s.ctx)
		s.do(err)
	}
	s.wantNumber(2, "polymq.consumer.in_flight")
	s.do(sub.Close(s.ctx))
	s.wantNumber(0, "polymq.consumer.in_flight")
}

func TestReconnects(t *testing.T) {
	onEach(t, func(t *testing.T, url string) {
		cut := func() { mem.Sever(url[len("mem://"):]) }
		if systemOf(url) != "memory" {
			link := testbroker.Proxy(t, url)
			cut, url = link.Cut, link.URL()
		}
		s := newScene(t, url, nil)
		for len(s.states) > 0 {
			<-s.states
		}
		cut()
		for _, want := range []polymq.State{polymq.StateDisconnected, polymq.StateConnected} {
			for got := polymq.State(0); got != want; {
				select {
				case got = <-s.states:
				case <-s.ctx.Done():
					t.Fatalf("the connection does not become %v", want)
				}
			}
		}
		s.wantNumber(1, "polymq.client.reconnects")
	})
}

func TestWatchQueues(t *testing.T) {
	onEach(t, func(t *testing.T, url string) {
		s := newScene(t, url, nil)
		s.do(s.publisher("").Publish(s.ctx, &polymq.Message{Key: "plain"}, &polymq.Message{Key: "plain"}, &polymq.Message{Key: "plain"}))
		reg, err := s.observer.WatchQueues(s.conn, []string{"plain", "billing"}, attribute.String("site", "north"))
		s.do(err)
		plain := []attribute.KeyValue{
			attribute.String("messaging.system", systemOf(url)),
			attribute.String("messaging.destination.name", "plain"),
			attribute.String("site", "north"),
		}
		ready := append(plain, attribute.String("polymq.queue.message.state", "ready"))
		s.wantNumber(3, "polymq.queue.messages", ready...)
		s.wantNumber(0, "polymq.queue.messages", attribute.String("messaging.destination.name", "billing"), attribute.String("polymq.queue.message.state", "ready"))
		s.wantNumber(0, "polymq.queue.consumers", plain...)
		s.subscriber("billing", nil)
		s.wantNumber(1, "polymq.queue.consumers", attribute.String("messaging.destination.name", "billing"))
		s.do(reg.Unregister())
		if _, found := s.number("polymq.queue.messages", ready...); found {
			t.Error("it goes on after Unregister")
		}
	})
}
