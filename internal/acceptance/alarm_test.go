package acceptance_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestMemoryAlarm: while a broker has no memory left, publishers wait, and are told;
// consumers go on. When it has some again, what was waiting is confirmed.
func TestMemoryAlarm(t *testing.T) {
	for _, scheme := range []string{"amqp", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			b := testbroker.Start(t, scheme)
			ctx := within(t, 2*time.Minute)
			states := make(chan polymq.State, 100)
			conn, err := polymq.Open(ctx, b.URL(), &polymq.Options{OnState: func(s polymq.State, _ error) { states <- s }})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(ctx)
			told := func(want polymq.State) {
				t.Helper()
				for {
					select {
					case s := <-states:
						if s == want {
							return
						}
					case <-ctx.Done():
						t.Fatalf("the state %v was not told", want)
					}
				}
			}
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "stock"}, {Name: "new"}}})
			const stock = 20
			pub := publisher(t, conn, "")
			for range stock {
				if err := pub.Publish(ctx, &polymq.Message{Key: "stock"}); err != nil {
					t.Fatal(err)
				}
			}
			sub := subscriber(t, conn, "stock", 2)
			var waiting *polymq.Receipt
			b.FullMemory(func() {
				// RabbitMQ reads this one, and says then that it reads no more.
				if _, err = pub.PublishAsync(ctx, &polymq.Message{ID: "first", Key: "new"}); err != nil {
					t.Fatal(err)
				}
				told(polymq.StateBlocked)
				if waiting, err = pub.PublishAsync(ctx, &polymq.Message{ID: "waited", Key: "new"}); err != nil {
					t.Fatal(err)
				}
				for range stock {
					d, err := sub.Receive(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if err := d.Ack(ctx); err != nil {
						t.Fatal(err)
					}
				}
				await(t, ctx, "the stock to be gone", func() bool {
					info, err := conn.Inspect(ctx, "stock")
					return err == nil && info.Ready+info.Unsettled == 0
				})
				select {
				case <-waiting.Done():
					t.Errorf("published: %v", waiting.Err())
				default:
				}
				short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
				defer cancel()
				if err := pub.Publish(short, &polymq.Message{ID: "given up", Key: "new"}); !errors.Is(err, polymq.ErrUnconfirmed) {
					t.Errorf("a publish whose ctx ended: %v", err)
				}
			})
			if err := waiting.Wait(ctx); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			told(polymq.StateConnected)
			late := subscriber(t, conn, "new", 2)
			for _, want := range []string{"first", "waited"} {
				got, err := late.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if got.ID != want {
					t.Errorf("%s came in the place of %s", got.ID, want)
				}
			}
		})
	}
}
