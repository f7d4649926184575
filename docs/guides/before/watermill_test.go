package before

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
)

// consumeWatermill is a router with one handler, as Watermill's documentation
// has it. The publisher and subscriber decide the broker.
func consumeWatermill(ctx context.Context, sub message.Subscriber, handle func(body []byte) error) error {
	router, err := message.NewRouter(message.RouterConfig{}, watermill.NopLogger{})
	if err != nil {
		return err
	}
	router.AddMiddleware(
		middleware.Recoverer,
		middleware.Retry{MaxRetries: 3, InitialInterval: 100 * time.Millisecond}.Middleware,
	)
	router.AddConsumerHandler("billing", "order.paid", sub, func(msg *message.Message) error {
		return handle(msg.Payload) // nil acks, an error nacks
	})
	return router.Run(ctx)
}

func publishWatermill(pub message.Publisher, body []byte) error {
	msg := message.NewMessage(watermill.NewUUID(), body)
	msg.Metadata.Set("region", "eu")
	return pub.Publish("order.paid", msg)
}

func TestWatermill(t *testing.T) {
	broker := gochannel.NewGoChannel(gochannel.Config{Persistent: true}, watermill.NopLogger{})
	if err := publishWatermill(broker, []byte("17 EUR")); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	calls := 0
	err := consumeWatermill(ctx, broker, func(body []byte) error {
		if calls++; calls == 1 {
			return errors.New("not yet")
		}
		if string(body) != "17 EUR" {
			t.Errorf("got %q", body)
		}
		stop()
		return nil
	})
	if err != nil || calls != 2 {
		t.Errorf("%d calls, error %v", calls, err)
	}
}
