package polymq_test

import (
	"context"
	"fmt"
	"log"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// Counting what was published and how it was settled. For traces and metrics
// there is the module otelpolymq.
func ExampleHooks() {
	ctx := context.Background()
	published, settled := 0, map[string]int{}
	conn, err := polymq.Open(ctx, "mem://example-hooks", &polymq.Options{
		Observers: []polymq.Observer{&polymq.Hooks{
			PublishEnd: func(_ context.Context, e polymq.PublishEvent) {
				for _, m := range e.Messages {
					if m.Err == nil {
						published++
					}
				}
			},
			Settle: func(_ context.Context, e polymq.SettleEvent) {
				if e.Err == nil {
					settled[e.Outcome.String()]++
				}
			},
		}},
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "print"}}}); err != nil {
		log.Fatal(err)
	}
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	_ = pub.Publish(ctx,
		&polymq.Message{Key: "print", Body: []byte("one")},
		&polymq.Message{Key: "print", Body: []byte("two")},
		&polymq.Message{Key: "no such queue"})

	sub, err := conn.Subscriber(ctx, "print", nil)
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		d, err := sub.Receive(ctx)
		if err != nil {
			log.Fatal(err)
		}
		if string(d.Body) == "one" {
			err = d.Ack(ctx)
		} else {
			err = d.Reject(ctx)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(published, "published,", settled["ack"], "acknowledged,", settled["reject"], "rejected")
	// Output: 2 published, 1 acknowledged, 1 rejected
}
