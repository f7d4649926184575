package polymq_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// The whole way of a message: the same program runs on RabbitMQ, NATS or Redis
// with another URL and another import.
func Example() {
	ctx := context.Background()
	conn, err := polymq.Open(ctx, "mem://example", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)

	err = conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	pub, err := conn.Publisher(ctx, "orders", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := pub.Publish(ctx, &polymq.Message{Key: "order.paid", Body: []byte("7")}); err != nil {
		log.Fatal(err)
	}
	sub, err := conn.Subscriber(ctx, "billing", nil)
	if err != nil {
		log.Fatal(err)
	}
	d, err := sub.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s from %s: %s\n", d.Key, d.Exchange, d.Body)
	if err := d.Ack(ctx); err != nil {
		log.Fatal(err)
	}
	// Output: order.paid from orders: 7
}

// station opens a connection to a broker of its own, with one queue.
func station(ctx context.Context, name string) (*polymq.Conn, *polymq.Publisher) {
	conn, err := polymq.Open(ctx, "mem://"+name, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "jobs"}}}); err != nil {
		log.Fatal(err)
	}
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	return conn, pub
}

// Run calls a handler for each message and settles by what it returns. It ends
// with its ctx, which a program usually has from signal.NotifyContext.
func ExampleSubscriber_Run() {
	ctx, stop := context.WithCancel(context.Background())
	conn, pub := station(ctx, "run")
	defer conn.Close(context.Background())
	for _, body := range []string{"sweep", "juggle"} {
		if err := pub.Publish(ctx, &polymq.Message{Key: "jobs", Body: []byte(body)}); err != nil {
			log.Fatal(err)
		}
	}

	sub, err := conn.Subscriber(ctx, "jobs", nil)
	if err != nil {
		log.Fatal(err)
	}
	err = sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		fmt.Printf("%s, attempt %d\n", d.Body, d.Attempt)
		switch {
		case string(d.Body) == "juggle":
			return polymq.Permanent(errors.New("nobody here can juggle")) // rejected
		case d.Attempt == 1:
			return polymq.RetryAfter(50*time.Millisecond, errors.New("no broom")) // comes again
		}
		stop()
		return nil // acknowledged
	})
	fmt.Println("ended:", err)
	// Output:
	// sweep, attempt 1
	// juggle, attempt 1
	// sweep, attempt 2
	// ended: <nil>
}

// Typed decodes bodies; what cannot be decoded is rejected.
func ExampleTyped() {
	ctx, stop := context.WithCancel(context.Background())
	conn, pub := station(ctx, "typed")
	defer conn.Close(context.Background())

	type job struct {
		Tool  string
		Times int
	}
	m, err := polymq.Encode(job{"broom", 3}, polymq.JSON)
	if err != nil {
		log.Fatal(err)
	}
	m.Key = "jobs"
	if err := pub.Publish(ctx, m); err != nil {
		log.Fatal(err)
	}
	sub, err := conn.Subscriber(ctx, "jobs", nil)
	if err != nil {
		log.Fatal(err)
	}
	err = sub.Run(ctx, polymq.Typed(func(_ context.Context, d *polymq.Delivery, j job) error {
		fmt.Println(d.ContentType, j.Tool, j.Times)
		stop()
		return nil
	}))
	fmt.Println(err)
	// Output:
	// application/json broom 3
	// <nil>
}

// Each message of a Publish has its own outcome.
func ExamplePublishError() {
	ctx := context.Background()
	conn, pub := station(ctx, "failures")
	defer conn.Close(ctx)

	err := pub.Publish(ctx,
		&polymq.Message{Key: "jobs", Body: []byte("sweep")},
		&polymq.Message{ID: "job-2", Key: "jbos", Body: []byte("dust")},
	)
	if failed, ok := errors.AsType[*polymq.PublishError](err); ok {
		for _, f := range failed.Failures {
			fmt.Println(f.Index, f.ID, errors.Is(f.Err, polymq.ErrUnroutable))
		}
	}
	// Output: 1 job-2 true
}

// PublishAsync leaves the outcome to the receipt, so that many messages are on
// their way at once.
func ExamplePublisher_PublishAsync() {
	ctx := context.Background()
	conn, pub := station(ctx, "async")
	defer conn.Close(ctx)

	var receipts []*polymq.Receipt
	for i := range 3 {
		r, err := pub.PublishAsync(ctx, &polymq.Message{ID: fmt.Sprint("job-", i), Key: "jobs"})
		if err != nil {
			log.Fatal(err)
		}
		receipts = append(receipts, r)
	}
	for _, r := range receipts {
		fmt.Println(r.ID(), r.Wait(ctx))
	}
	// Output:
	// job-0 <nil>
	// job-1 <nil>
	// job-2 <nil>
}

// Deliveries is for loops that settle by hand.
func ExampleSubscriber_Deliveries() {
	ctx := context.Background()
	conn, pub := station(ctx, "pull")
	defer conn.Close(ctx)
	if err := pub.Publish(ctx, &polymq.Message{Key: "jobs", Body: []byte("sweep")}, &polymq.Message{Key: "jobs", Body: []byte("dust")}); err != nil {
		log.Fatal(err)
	}
	sub, err := conn.Subscriber(ctx, "jobs", &polymq.SubscriberOptions{Prefetch: 10})
	if err != nil {
		log.Fatal(err)
	}
	n := 0
	for d, err := range sub.Deliveries(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(d.Body))
		if err := d.Ack(ctx); err != nil {
			log.Fatal(err)
		}
		if n++; n == 2 {
			break
		}
	}
	// Output:
	// sweep
	// dust
}

// Sender is what this program needs of a publisher: tests can put something
// else in its place, and *polymq.Publisher satisfies it.
type Sender interface {
	Publish(ctx context.Context, msgs ...*polymq.Message) error
}

var _ Sender = (*polymq.Publisher)(nil)

type printer struct{}

func (printer) Publish(_ context.Context, msgs ...*polymq.Message) error {
	for _, m := range msgs {
		fmt.Println("would send", m.Key)
	}
	return nil
}

// A seam for tests is an interface that the program declares itself.
func ExamplePublisher_seam() {
	greet := func(ctx context.Context, s Sender) error {
		return s.Publish(ctx, &polymq.Message{Key: "greetings"})
	}
	fmt.Println(greet(context.Background(), printer{}))
	// Output:
	// would send greetings
	// <nil>
}

// A requester waits for replies, a responder gives them; values travel as JSON.
func ExampleNewTypedRequester() {
	ctx, stop := context.WithTimeout(context.Background(), time.Minute)
	conn, _ := station(ctx, "rpc")
	defer conn.Close(context.Background())

	type job struct{ Tool string }
	sub, err := conn.Subscriber(ctx, "jobs", nil)
	if err != nil {
		log.Fatal(err)
	}
	serving := make(chan error)
	go func() {
		serving <- sub.Run(ctx, polymq.TypedResponder(func(_ context.Context, d *polymq.Delivery, j job) (string, error) {
			if j.Tool == "" {
				return "", errors.New("no tool")
			}
			return "fetched the " + j.Tool, nil
		}))
	}()

	r, err := conn.Requester(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	jobs := polymq.NewTypedRequester[job, string](r, polymq.JSON)
	fmt.Println(jobs.Call(ctx, polymq.Message{Key: "jobs"}, job{"broom"}))
	_, err = jobs.Call(ctx, polymq.Message{Key: "jobs"}, job{})
	if remote, ok := errors.AsType[*polymq.RemoteError](err); ok {
		fmt.Println("error:", remote.Text)
	}
	stop()
	fmt.Println(<-serving)
	// Output:
	// fetched the broom <nil>
	// error: no tool
	// <nil>
}

// Publish takes the value, and the message that is to carry it.
func ExampleTypedPublisher() {
	ctx := context.Background()
	conn, pub := station(ctx, "typed-publisher")
	defer conn.Close(ctx)

	type job struct{ Tool string }
	jobs := polymq.NewTypedPublisher[job](pub, polymq.JSON)
	if err := jobs.Publish(ctx, polymq.Message{Key: "jobs", Priority: 3}, job{"broom"}); err != nil {
		log.Fatal(err)
	}
	sub, err := conn.Subscriber(ctx, "jobs", nil)
	if err != nil {
		log.Fatal(err)
	}
	d, err := sub.Receive(ctx)
	if err != nil {
		log.Fatal(err)
	}
	j, err := polymq.Decode[job](d.Message)
	fmt.Println(string(d.Body), d.ContentType, j.Tool, err)
	// Output: {"Tool":"broom"} application/json broom <nil>
}

// OrderBy keeps what belongs together in order, while other work goes past it.
func ExampleSubscriberOptions_orderBy() {
	ctx, stop := context.WithCancel(context.Background())
	conn, pub := station(ctx, "order-by")
	defer conn.Close(context.Background())
	for _, body := range []string{"open", "fill", "close"} {
		if err := pub.Publish(ctx, &polymq.Message{Key: "jobs", Body: []byte(body), Header: polymq.Header{"order": "7"}}); err != nil {
			log.Fatal(err)
		}
	}
	sub, err := conn.Subscriber(ctx, "jobs", &polymq.SubscriberOptions{
		Concurrency: 16,
		Prefetch:    64,
		OrderBy:     func(d *polymq.Delivery) string { return d.Header.Get("order") },
	})
	if err != nil {
		log.Fatal(err)
	}
	err = sub.Run(ctx, func(_ context.Context, d *polymq.Delivery) error {
		fmt.Println(string(d.Body))
		if string(d.Body) == "close" {
			stop()
		}
		return nil
	})
	fmt.Println(err)
	// Output:
	// open
	// fill
	// close
	// <nil>
}
