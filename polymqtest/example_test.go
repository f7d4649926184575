package polymqtest_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

// A test as users write it: in memory here, on a broker with POLYMQ_TEST_URL.
func TestExample(t *testing.T) {
	t.Setenv(polymqtest.Env, "") // what it asserts below is exact in memory
	polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, routing.Topology{
			Queues:   []routing.Queue{{Name: "mail", MaxAttempts: 3, DeadLetterExchange: "amq.fanout"}, {Name: "mail.dead"}},
			Bindings: []routing.Binding{{Exchange: "amq.fanout", Queue: "mail.dead"}},
		})
		serve(t, conn, "mail", &polymq.SubscriberOptions{Backoff: polymq.Exponential(time.Minute, time.Hour)},
			func(context.Context, *polymq.Delivery) error { return errors.New("the mail server is down") })
		ok(t, publisher(t, conn, "").Publish(t.Context(), &polymq.Message{Key: "mail"}))

		b.Settled(conn, "mail.dead") // minutes of backoff pass at once
		wantReady(t, conn, "mail.dead", 1)
	})
}

// A recorder on a connection of one's own.
func ExampleRecorder_Settled() {
	ctx := context.Background()
	recorder := polymqtest.NewRecorder()
	conn, err := polymq.Open(ctx, "mem://example-recorder", &polymq.Options{Observers: []polymq.Observer{recorder}})
	if err != nil {
		log.Fatal(err)
	}
	defer mem.Remove("example-recorder")
	defer conn.Close(ctx)
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "print"}}}); err != nil {
		log.Fatal(err)
	}
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	sub, err := conn.Subscriber(ctx, "print", nil)
	if err != nil {
		log.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() {
		done <- sub.Run(running, func(context.Context, *polymq.Delivery) error { return nil })
	}()
	for _, id := range []string{"1", "2", "3"} {
		if err := pub.Publish(ctx, &polymq.Message{ID: id, Key: "print"}); err != nil {
			log.Fatal(err)
		}
	}
	wait, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := recorder.Settled(wait, conn); err != nil {
		log.Fatal(err)
	}
	for _, s := range recorder.Settlements("print") {
		fmt.Println(s.ID, s.Outcome)
	}
	stop()
	fmt.Println(<-done)
	// Output:
	// 1 ack
	// 2 ack
	// 3 ack
	// <nil>
}

// What is missing when the time is up.
func ExampleUnsettled() {
	ctx := context.Background()
	recorder := polymqtest.NewRecorder()
	conn, err := polymq.Open(ctx, "mem://example-unsettled", &polymq.Options{Observers: []polymq.Observer{recorder}})
	if err != nil {
		log.Fatal(err)
	}
	defer mem.Remove("example-unsettled")
	defer conn.Close(ctx)
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "print"}}}); err != nil {
		log.Fatal(err)
	}
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := pub.Publish(ctx, &polymq.Message{Key: "print"}); err != nil {
		log.Fatal(err)
	}
	wait, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	fmt.Println(recorder.Settled(wait, conn))
	// Output: polymqtest: not settled: context deadline exceeded: queue "print" has 1 ready and 0 unsettled messages, and 0 subscribers
}

func ExampleSometimes() {
	rule := polymqtest.Sometimes(7, polymqtest.Chances{Drop: 0.25, Duplicate: 0.25})
	dropped, duplicated := 0, 0
	for range 1000 {
		f := rule(polymqtest.Step{Op: polymqtest.Deliver})
		if f.Drop {
			dropped++
		}
		if f.Duplicate {
			duplicated++
		}
	}
	fmt.Println("about a quarter:", dropped/50, duplicated/50)
	// Output: about a quarter: 5 5
}
