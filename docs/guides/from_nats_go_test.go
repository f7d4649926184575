package guides

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func beforeNATS(ctx context.Context, url string) error {
	nc, err := nats.Connect(url)
	if err != nil {
		return err
	}
	defer nc.Drain()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: "ORDERS", Subjects: []string{"orders.>"}, Retention: jetstream.InterestPolicy,
	})
	if err != nil {
		return err
	}
	cons, err := stream.CreateOrUpdateConsumer(ctx, jetstream.ConsumerConfig{
		Durable: "billing", FilterSubject: "orders.*.paid", AckPolicy: jetstream.AckExplicitPolicy,
		AckWait: 30 * time.Second, MaxDeliver: 5, MaxAckPending: 32,
	})
	if err != nil {
		return err
	}
	if _, err := js.Publish(ctx, "orders.eu.paid", []byte("17 EUR"), jetstream.WithMsgID("order-17")); err != nil {
		return err
	}
	msg, err := cons.Next(jetstream.FetchMaxWait(5 * time.Second))
	if err != nil {
		return err
	}
	// A handler that takes longer than AckWait must call msg.InProgress.
	return msg.DoubleAck(ctx)
}

func afterNATS(ctx context.Context, url string) error {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues: []routing.Queue{
			{Name: "billing", MaxAttempts: 5, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "billing.dead"},
			{Name: "billing.dead"},
		},
		Bindings: []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "*.paid"}},
	})
	if err != nil {
		return err
	}
	pub, err := conn.Publisher(ctx, "orders", nil)
	if err != nil {
		return err
	}
	err = pub.Publish(ctx, &polymq.Message{ID: "order-17", Key: "eu.paid", Body: []byte("17 EUR")})
	if err != nil {
		return err
	}
	sub, err := conn.Subscriber(ctx, "billing", &polymq.SubscriberOptions{Prefetch: 32})
	if err != nil {
		return err
	}
	d, err := sub.Receive(ctx) // held until it is settled, however long that takes
	if err != nil {
		return err
	}
	return d.Ack(ctx)
}

func TestFromNATS(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		url := testbroker.URL(t, "nats")
		plain, _, _ := strings.Cut(url, "?")
		if err := beforeNATS(within(t), plain); err != nil {
			t.Fatal(err)
		}
		removeStream(t, plain, "ORDERS")
	})
	fresh(t, func(t *testing.T, ctx context.Context, url string) {
		if err := afterNATS(ctx, url); err != nil {
			t.Fatal(err)
		}
	}, "mem", "amqp", "nats", "redis")
}

func removeStream(t *testing.T, url, name string) {
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), name); err != nil {
		t.Error(err)
	}
}
