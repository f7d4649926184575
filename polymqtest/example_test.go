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

// A test as users write it: in memory here, on a broker with POLYMQ_TEST_URL. Three
// attempts, minutes apart, pass at once.
func ExampleRun() {
	TestMail := func(t *testing.T) {
		polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
			conn := b.Open(nil)
			b.Declare(conn, routing.Topology{
				Queues:   []routing.Queue{{Name: "mail", MaxAttempts: 3, DeadLetterExchange: "amq.fanout"}, {Name: "mail.dead"}},
				Bindings: []routing.Binding{{Exchange: "amq.fanout", Queue: "mail.dead"}},
			})
			serve(t, conn, "mail", &polymq.SubscriberOptions{Backoff: polymq.Exponential(time.Minute, time.Hour)},
				func(context.Context, *polymq.Delivery) error { return errors.New("the mail server is down") })
			ok(t, publisher(t, conn, "").Publish(t.Context(), &polymq.Message{ID: "7", Key: "mail"}))

			b.Settled(conn, "mail.dead") // all is done, or came to rest there
			for _, s := range b.Recorder().Settlements("mail") {
				fmt.Println("mail", s.ID, "attempt", s.Attempt, s.Outcome)
			}
			wantReady(t, conn, "mail.dead", 1)
		})
	}
	example(TestMail) // go test calls it where it stands in a file *_test.go
	// Output:
	// mail 7 attempt 1 nack
	// mail 7 attempt 2 nack
	// mail 7 attempt 3 nack
}

// The first acknowledgement is lost on its way: the message comes again, and the
// handler must bear that.
func ExampleBroker_Inject() {
	TestBilledOnce := func(t *testing.T) {
		polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
			conn := b.Open(nil)
			b.Declare(conn, routing.Topology{Queues: []routing.Queue{{Name: "billing"}}})
			b.Inject(func(s polymqtest.Step) polymqtest.Fault {
				return polymqtest.Fault{Drop: s.Op == polymqtest.Settle && s.N == 1}
			})
			billed := map[string]bool{}
			serve(t, conn, "billing", nil, func(_ context.Context, d *polymq.Delivery) error {
				fmt.Println("attempt", d.Attempt, "billed before:", billed[d.ID])
				billed[d.ID] = true
				return nil
			})
			ok(t, publisher(t, conn, "").Publish(t.Context(), &polymq.Message{ID: "7", Key: "billing"}))
			b.Settled(conn)
		})
	}
	example(TestBilledOnce)
	// Output:
	// attempt 1 billed before: false
	// attempt 2 billed before: true
}

// An hour passes at once, with all that falls due in it.
func ExampleBroker_Advance() {
	TestReminder := func(t *testing.T) {
		polymqtest.Run(t, func(t *testing.T, b *polymqtest.Broker) {
			conn := b.Open(nil)
			b.Declare(conn, routing.Topology{Queues: []routing.Queue{{Name: "reminders"}}})
			ok(t, publisher(t, conn, "").Publish(t.Context(), &polymq.Message{Key: "reminders", Delay: time.Hour}))
			for range 2 {
				info, err := conn.Inspect(t.Context(), "reminders")
				ok(t, err)
				fmt.Println(info.Ready, "due")
				b.Advance(time.Hour)
			}
		})
	}
	example(TestReminder)
	// Output:
	// 0 due
	// 1 due
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
	wait, cancel := context.WithTimeout(ctx, time.Second)
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
