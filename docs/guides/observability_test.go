package guides

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/routing"
)

// counters is a Hooks: whoever has metrics of another kind writes one.
type counters struct{ published, failed atomic.Int64 }

func (c *counters) hooks() *polymq.Hooks {
	return &polymq.Hooks{PublishEnd: func(_ context.Context, e polymq.PublishEvent) {
		for _, m := range e.Messages {
			if c.published.Add(1); m.Err != nil {
				c.failed.Add(1)
			}
		}
	}}
}

func observed(ctx context.Context, url string, log *slog.Logger, c *counters) (*polymq.Conn, error) {
	return polymq.Open(ctx, url, &polymq.Options{
		Logger:    log, // connection lost and back, retries, what no call can return; never bodies or passwords
		Observers: []polymq.Observer{c.hooks()},
	})
}

// logged writes a line for each delivery: queue, key, ID, attempt, outcome, time.
func logged(log *slog.Logger) *polymq.SubscriberOptions {
	return &polymq.SubscriberOptions{Middleware: []polymq.Middleware{middleware.Log(log, slog.LevelDebug)}}
}

// depth is for a gauge, or for an autoscaler.
func depth(ctx context.Context, conn *polymq.Conn, queue string) (waiting, held int, err error) {
	info, err := conn.Inspect(ctx, queue)
	return info.Ready, info.Unsettled, err
}

func TestObservability(t *testing.T) {
	fresh(t, func(t *testing.T, ctx context.Context, url string) {
		log := slog.New(slog.DiscardHandler)
		c := new(counters)
		conn, err := observed(ctx, url, log, c)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(ctx))
		if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q"}}}); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "", &polymq.Message{Key: "q"})
		if n, _, err := depth(ctx, conn, "q"); n != 1 || err != nil {
			t.Errorf("depth is %d, error %v", n, err)
		}
		sub, err := conn.Subscriber(ctx, "q", logged(log))
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(ctx)
		if err := sub.Run(ctx, func(context.Context, *polymq.Delivery) error { stop(); return nil }); err != nil {
			t.Error(err)
		}
		if c.published.Load() != 1 || c.failed.Load() != 0 {
			t.Errorf("counted %d, %d failed", c.published.Load(), c.failed.Load())
		}
	}, "mem", "amqp", "nats", "redis")
}
