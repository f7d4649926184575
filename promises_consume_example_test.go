package polymq_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// 13. What was not settled comes again.
func Example_atLeastOnce() {
	ctx := context.Background()
	conn, pub := station(ctx, "again")
	defer conn.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs", Body: []byte("sweep")}))
	first := subscribe(ctx, conn, "jobs")
	_, err := first.Receive(ctx)
	do(err)
	do(first.Close(ctx)) // without a settlement
	d := take(ctx, subscribe(ctx, conn, "jobs"))
	fmt.Printf("%s, attempt %d\n", d.Body, d.Attempt)
	// Output: sweep, attempt 2
}

// 14. What one holds goes to nobody else, and a hold that was lost settles
// nothing.
func Example_heldIsHeld() {
	ctx := context.Background()
	conn, pub := station(ctx, "held")
	defer conn.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs"}))
	d, err := subscribe(ctx, conn, "jobs").Receive(ctx)
	do(err)
	fmt.Println("holds:", d.Extend(ctx))
	mem.Sever("held") // the connection is lost, and the hold with it
	fmt.Println("lost:", errors.Is(d.Ack(ctx), polymq.ErrLost))
	// Output:
	// holds: <nil>
	// lost: true
}

// 15. Attempts are counted; what was merely prefetched is none.
func Example_counted() {
	ctx := context.Background()
	conn, pub := station(ctx, "counted")
	defer conn.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs"}))
	do(subscribe(ctx, conn, "jobs").Close(ctx)) // may have prefetched it
	sub := subscribe(ctx, conn, "jobs")
	for range 3 {
		d, err := sub.Receive(ctx)
		do(err)
		fmt.Println(d.Attempt)
		do(d.Nack(ctx, 0))
	}
	// Output:
	// 1
	// 2
	// 3
}

// 16. A nacked message returns to its queue, not to the exchange.
func Example_itsQueueOnly() {
	ctx := context.Background()
	conn, _ := station(ctx, "own")
	defer conn.Close(ctx)
	do(conn.Declare(ctx, routing.Topology{
		Queues: []routing.Queue{{Name: "other"}},
		Bindings: []routing.Binding{
			{Exchange: "amq.fanout", Queue: "jobs"}, {Exchange: "amq.fanout", Queue: "other"},
		},
	}))
	pub, err := conn.Publisher(ctx, "amq.fanout", nil)
	do(err)
	do(pub.Publish(ctx, &polymq.Message{}))
	sub := subscribe(ctx, conn, "jobs")
	d, err := sub.Receive(ctx)
	do(err)
	do(d.Nack(ctx, 0))
	take(ctx, sub) // it is here again
	other, err := conn.Inspect(ctx, "other")
	fmt.Println(other.Ready, err)
	// Output: 1 <nil>
}

// 17. What a queue gives up goes to its dead-letter exchange, with the reason.
func Example_deadLetters() {
	ctx := context.Background()
	conn, pub := station(ctx, "dead")
	defer conn.Close(ctx)
	do(conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{
		{Name: "mails", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"}, {Name: "dead"},
	}}))
	do(pub.Publish(ctx, &polymq.Message{Key: "mails", Body: []byte("to nobody")}))
	d, err := subscribe(ctx, conn, "mails").Receive(ctx)
	do(err)
	do(d.Reject(ctx))
	d = take(ctx, subscribe(ctx, conn, "dead"))
	death := d.Deaths()[0]
	fmt.Printf("%s: %s in %s, %d time\n", d.Body, death.Reason, death.Queue, death.Count)
	// Output: to nobody: rejected in mails, 1 time
}

// 18. A subscriber holds at most Prefetch messages.
func Example_prefetch() {
	ctx := context.Background()
	conn, pub := station(ctx, "prefetch")
	defer conn.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs"}, &polymq.Message{Key: "jobs"}, &polymq.Message{Key: "jobs"}))
	sub, err := conn.Subscriber(ctx, "jobs", &polymq.SubscriberOptions{Prefetch: 2})
	do(err)
	held, err := sub.ReceiveBatch(ctx, 10)
	do(err)
	info, err := conn.Inspect(ctx, "jobs")
	fmt.Println(len(held), "held,", info.Ready, "left,", err)
	// Output: 2 held, 1 left, <nil>
}

// 19. Run ends by finishing what runs and giving back the rest.
func Example_drained() {
	ctx := context.Background()
	conn, pub := station(ctx, "drained")
	defer conn.Close(ctx)
	for range 5 {
		do(pub.Publish(ctx, &polymq.Message{Key: "jobs"}))
	}
	running, stop := context.WithCancel(ctx)
	err := subscribe(ctx, conn, "jobs").Run(running, func(ctx context.Context, d *polymq.Delivery) error {
		stop() // a signal comes while the handler is at work
		fmt.Println("finishes, ctx:", ctx.Err())
		return nil
	})
	info, _ := conn.Inspect(ctx, "jobs")
	fmt.Println(err, "and", info.Ready, "are left")
	// Output:
	// finishes, ctx: <nil>
	// <nil> and 4 are left
}

// 20. A second settlement is an error and does no harm.
func Example_settledOnce() {
	ctx := context.Background()
	conn, pub := station(ctx, "once")
	defer conn.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs"}))
	d := take(ctx, subscribe(ctx, conn, "jobs"))
	fmt.Println(errors.Is(d.Nack(ctx, 0), polymq.ErrSettled))
	// Output: true
}
