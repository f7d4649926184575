package dedup_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	"github.com/polymq/polymq/drivers/redis/dedup"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

// Two subscribers with a client of Redis each handle each order once between them,
// whichever broker brings the messages.
func TestShared(t *testing.T) {
	at := testbroker.URL(t, "redis")
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			must := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			recorder := polymqtest.NewRecorder()
			conn, err := polymq.Open(ctx, testbroker.URL(t, scheme), &polymq.Options{Observers: []polymq.Observer{recorder}})
			must(err)
			defer conn.Close(context.WithoutCancel(ctx))
			must(conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "orders"}}}))

			var mu sync.Mutex
			handled := map[string]int{}
			running, stop := context.WithCancel(ctx)
			var runs sync.WaitGroup
			for range 2 {
				store, err := polymq.Open(ctx, at, nil)
				must(err)
				defer store.Close(context.WithoutCancel(ctx))
				sub, err := conn.Subscriber(ctx, "orders", &polymq.SubscriberOptions{
					Concurrency: 4,
					Middleware: []polymq.Middleware{middleware.Deduplicate(dedup.New(store.Native().(redis.UniversalClient), at+scheme), &middleware.DedupOptions{
						Key:  func(d *polymq.Delivery) string { return d.Header.Get("order") },
						Keep: time.Minute, Lease: 3 * time.Second, // for so long waits what the other has just in hand
					})},
				})
				must(err)
				runs.Go(func() {
					err := sub.Run(running, func(_ context.Context, d *polymq.Delivery) error {
						mu.Lock()
						defer mu.Unlock()
						handled[d.Header.Get("order")]++
						return nil
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			pub, err := conn.Publisher(ctx, "", nil)
			must(err)
			const orders = 25
			for range 3 {
				for i := range orders {
					must(pub.Publish(ctx, &polymq.Message{Key: "orders", Header: polymq.Header{"order": fmt.Sprint(i)}}))
				}
			}
			must(recorder.Settled(ctx, conn))
			stop()
			runs.Wait()
			for order, n := range handled {
				if n != 1 {
					t.Errorf("order %s was handled %d times", order, n)
				}
			}
			if len(handled) != orders {
				t.Errorf("%d of %d orders were handled", len(handled), orders)
			}
		})
	}
}
