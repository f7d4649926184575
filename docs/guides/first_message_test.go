package guides

import (
	"context"
	"fmt"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func firstMessage(ctx context.Context, url string) error {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))

	err = conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "letters"}}})
	if err != nil {
		return err
	}
	pub, err := conn.Publisher(ctx, "", nil) // the default exchange: the key names the queue
	if err != nil {
		return err
	}
	err = pub.Publish(ctx, &polymq.Message{Key: "letters", Body: []byte("hello")})
	if err != nil {
		return err
	}
	sub, err := conn.Subscriber(ctx, "letters", nil)
	if err != nil {
		return err
	}
	d, err := sub.Receive(ctx)
	if err != nil {
		return err
	}
	fmt.Printf("%s, attempt %d\n", d.Body, d.Attempt)
	return d.Ack(ctx)
}

func TestFirstMessage(t *testing.T) {
	fresh(t, func(t *testing.T, ctx context.Context, url string) {
		if err := firstMessage(ctx, url); err != nil {
			t.Fatal(err)
		}
	}, "mem", "amqp", "nats", "redis")
}
