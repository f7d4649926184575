package before

import (
	"context"
	"testing"
	"time"

	"gocloud.dev/pubsub"
	_ "gocloud.dev/pubsub/mempubsub"
)

func publishCDK(ctx context.Context, body []byte) error {
	topic, err := pubsub.OpenTopic(ctx, "mem://orders") // rabbit://orders, nats://orders
	if err != nil {
		return err
	}
	defer topic.Shutdown(ctx)
	return topic.Send(ctx, &pubsub.Message{Body: body, Metadata: map[string]string{"region": "eu"}})
}

func consumeCDK(ctx context.Context, sub *pubsub.Subscription, handle func(body []byte) error) error {
	for {
		msg, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		if err := handle(msg.Body); err == nil {
			msg.Ack()
		} else if msg.Nackable() {
			msg.Nack()
		}
	}
}

func TestCDK(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	topic, err := pubsub.OpenTopic(ctx, "mem://orders")
	if err != nil {
		t.Fatal(err)
	}
	defer topic.Shutdown(context.WithoutCancel(ctx))
	sub, err := pubsub.OpenSubscription(ctx, "mem://orders")
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Shutdown(context.WithoutCancel(ctx))
	if err := publishCDK(ctx, []byte("17 EUR")); err != nil {
		t.Fatal(err)
	}
	got := ""
	_ = consumeCDK(ctx, sub, func(body []byte) error {
		got = string(body)
		stop()
		return nil
	})
	if got != "17 EUR" {
		t.Errorf("got %q", got)
	}
}
