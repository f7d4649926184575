package polymq_test

// The promises of the package documentation, one example each. Those of
// publishing:

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// do is for errors that an example does not expect.
func do(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// take receives one message and acknowledges it.
func take(ctx context.Context, sub *polymq.Subscriber) *polymq.Delivery {
	d, err := sub.Receive(ctx)
	do(err)
	do(d.Ack(ctx))
	return d
}

func subscribe(ctx context.Context, conn *polymq.Conn, queue string) *polymq.Subscriber {
	sub, err := conn.Subscriber(ctx, queue, nil)
	do(err)
	return sub
}

// 1. When Publish returns nil, the queue has the message.
func Example_confirmed() {
	ctx := context.Background()
	conn, pub := station(ctx, "confirmed")
	defer conn.Close(ctx)
	do(pub.Publish(ctx, &polymq.Message{Key: "jobs"}))
	info, err := conn.Inspect(ctx, "jobs")
	fmt.Println(info.Ready, err)
	// Output: 1 <nil>
}

// 2. A message is confirmed, refused, or its outcome is unknown.
func Example_threeOutcomes() {
	ctx := context.Background()
	conn, pub := station(ctx, "outcomes")
	defer conn.Close(ctx)
	do(conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}}}))

	fmt.Println("confirmed:", pub.Publish(ctx, &polymq.Message{Key: "full"}))
	fmt.Println("refused:", errors.Is(pub.Publish(ctx, &polymq.Message{Key: "full"}), polymq.ErrRejected))
	ended, cancel := context.WithCancel(ctx)
	cancel()
	err := pub.Publish(ended, &polymq.Message{Key: "jobs"})
	fmt.Println("not sent:", errors.Is(err, context.Canceled), errors.Is(err, polymq.ErrUnconfirmed))
	// Output:
	// confirmed: <nil>
	// refused: true
	// not sent: true false
}

// 3. A message that no queue takes is heard of, on that call.
func Example_unroutable() {
	ctx := context.Background()
	conn, pub := station(ctx, "unroutable")
	defer conn.Close(ctx)
	err := pub.Publish(ctx, &polymq.Message{ID: "1", Key: "nobody"})
	fmt.Println(errors.Is(err, polymq.ErrUnroutable))
	careless, err := conn.Publisher(ctx, "", &polymq.PublisherOptions{DropUnroutable: true})
	do(err)
	fmt.Println(careless.Publish(ctx, &polymq.Message{Key: "nobody"}))
	// Output:
	// true
	// <nil>
}

// 4. Publishing creates nothing.
func Example_nothingMadeUp() {
	ctx := context.Background()
	conn, _ := station(ctx, "nothing")
	defer conn.Close(ctx)
	pub, err := conn.Publisher(ctx, "missing", nil)
	do(err)
	fmt.Println(errors.Is(pub.Publish(ctx, &polymq.Message{Key: "k"}), polymq.ErrNotFound))
	t, err := conn.Topology(ctx)
	fmt.Println(len(t.Exchanges), err)
	// Output:
	// true
	// 0 <nil>
}

// 5. A queue gets one copy, however many bindings lead to it.
func Example_oneCopy() {
	ctx := context.Background()
	conn, _ := station(ctx, "copy")
	defer conn.Close(ctx)
	do(conn.Bind(ctx,
		routing.Binding{Exchange: "amq.topic", Queue: "jobs", Key: "a.*"},
		routing.Binding{Exchange: "amq.topic", Queue: "jobs", Key: "#"}))
	pub, err := conn.Publisher(ctx, "amq.topic", nil)
	do(err)
	do(pub.Publish(ctx, &polymq.Message{Key: "a.b", Header: polymq.Header{"CC": []any{"a.c"}}}))
	n, err := conn.Purge(ctx, "jobs")
	fmt.Println(n, err)
	// Output: 1 <nil>
}

// 6. Messages come in the order in which a publisher published them.
func Example_order() {
	ctx := context.Background()
	conn, pub := station(ctx, "order")
	defer conn.Close(ctx)
	for _, body := range []string{"1", "2", "3"} {
		do(pub.Publish(ctx, &polymq.Message{Key: "jobs", Body: []byte(body)}))
	}
	sub := subscribe(ctx, conn, "jobs")
	for range 3 {
		fmt.Print(string(take(ctx, sub).Body), " ")
	}
	// Output: 1 2 3
}

// 7. A publisher has at most its window on the way; more wait, until ctx ends.
func Example_bounded() {
	ctx := context.Background()
	conn, _ := station(ctx, "bounded")
	defer conn.Close(ctx)
	pub, err := conn.Publisher(ctx, "", &polymq.PublisherOptions{Window: 2})
	do(err)
	var msgs []*polymq.Message
	for range 10 {
		msgs = append(msgs, &polymq.Message{Key: "jobs"})
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	fmt.Println(pub.Publish(ctx, msgs...)) // piece by piece
	// Output: <nil>
}
