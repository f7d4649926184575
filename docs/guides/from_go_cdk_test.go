package guides

import (
	"context"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func consumeAfter(ctx context.Context, sub *polymq.Subscriber, handle func(body []byte) error) error {
	for d, err := range sub.Deliveries(ctx) {
		if err != nil {
			return err
		}
		settle := context.WithoutCancel(ctx) // a shutdown must not keep it from being settled
		if handle(d.Body) == nil {
			err = d.Ack(settle)
		} else {
			err = d.Nack(settle, time.Second)
		}
		if err != nil {
			return err
		}
	}
	return nil // ctx has ended
}

func TestFromCDK(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "orders"}}}); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "", &polymq.Message{Key: "orders", Body: []byte("17 EUR")})
		sub, err := conn.Subscriber(ctx, "orders", nil)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		got := ""
		err = consumeAfter(ctx, sub, func(body []byte) error {
			got = string(body)
			stop()
			return nil
		})
		if got != "17 EUR" || err != nil {
			t.Errorf("got %q, error %v", got, err)
		}
	})
}
