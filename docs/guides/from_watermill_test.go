package guides

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/routing"
)

func afterWatermill(ctx context.Context, conn *polymq.Conn, handle func(body []byte) error) error {
	sub, err := conn.Subscriber(ctx, "billing", &polymq.SubscriberOptions{Middleware: []polymq.Middleware{
		middleware.Recover(),
		middleware.Retry(4, polymq.Exponential(100*time.Millisecond, time.Second)),
	}})
	if err != nil {
		return err
	}
	return sub.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
		return handle(d.Body) // nil acks, an error nacks, with a growing delay
	})
}

func publishAfter(ctx context.Context, pub *polymq.Publisher, body []byte) error {
	return pub.Publish(ctx, &polymq.Message{Key: "order.paid", Header: polymq.Header{"region": "eu"}, Body: body})
}

func TestFromWatermill(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		err := conn.Declare(ctx, routing.Topology{
			Queues:   []routing.Queue{{Name: "billing"}},
			Bindings: []routing.Binding{{Exchange: "amq.topic", Queue: "billing", Key: "order.paid"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		pub, err := conn.Publisher(ctx, "amq.topic", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := publishAfter(ctx, pub, []byte("17 EUR")); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		calls := 0
		err = afterWatermill(ctx, conn, func([]byte) error {
			if calls++; calls == 1 {
				return errors.New("not yet")
			}
			stop()
			return nil
		})
		if err != nil || calls != 2 {
			t.Errorf("%d calls, error %v", calls, err)
		}
	})
}
