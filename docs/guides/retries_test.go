package guides

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/routing"
)

var mails = routing.Topology{Queues: []routing.Queue{{
	Name:               "mails",
	MaxAttempts:        3,
	DeadLetterExchange: routing.DefaultExchange, // leads to the queue that the key names
	DeadLetterKey:      "mails.dead",
}, {
	Name: "mails.dead",
}}}

var errNoAddress = errors.New("no such address")

func deliver(ctx context.Context, conn *polymq.Conn, send func(context.Context, string) error) error {
	sub, err := conn.Subscriber(ctx, "mails", &polymq.SubscriberOptions{
		Backoff: polymq.Exponential(20*time.Millisecond, time.Second), // default: 1 s to 5 min
		Middleware: []polymq.Middleware{
			middleware.Recover(),                // a panic is a failure like others
			middleware.Timeout(5 * time.Second), // for each attempt
		},
	})
	if err != nil {
		return err
	}
	return sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		err := send(ctx, string(d.Body))
		if errors.Is(err, errNoAddress) {
			return polymq.Permanent(err) // no attempt can cure it: a dead letter at once
		}
		return err // nil: done; else again, after the backoff, up to MaxAttempts
	})
}

func dead(ctx context.Context, conn *polymq.Conn) error {
	sub, err := conn.Subscriber(ctx, "mails.dead", nil)
	if err != nil {
		return err
	}
	d, err := sub.Receive(ctx)
	if err != nil {
		return err
	}
	for _, x := range d.Deaths() { // the latest first
		fmt.Printf("%s died in %s: %s\n", d.Body, x.Queue, x.Reason)
	}
	return sub.Close(ctx) // not settled: it goes back
}

func sendBack(ctx context.Context, conn *polymq.Conn) (moved int, err error) {
	return conn.Redrive(ctx, "mails.dead", &polymq.RedriveOptions{
		Filter: func(d *polymq.Delivery) bool { return d.Deaths()[0].Reason == "delivery_limit" },
	})
}

func TestRetries(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, mails); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "", &polymq.Message{Key: "mails", Body: []byte("ada")}, &polymq.Message{Key: "mails", Body: []byte("nobody")})
		working, stop := context.WithCancel(ctx)
		defer stop()
		attempts := make(chan string, 10)
		ended := make(chan error, 1)
		var up atomic.Bool
		go func() {
			ended <- deliver(working, conn, func(_ context.Context, to string) error {
				works := up.Load() // as it is before the test hears of the attempt
				attempts <- to
				switch {
				case to == "nobody":
					return errNoAddress
				case works:
					return nil
				}
				panic("the server is down")
			})
		}()
		for range 4 { // one for nobody, three for ada
			<-attempts
		}
		if err := dead(ctx, conn); err != nil {
			t.Fatal(err)
		}
		up.Store(true)
		for moved := 0; moved == 0; {
			n, err := sendBack(ctx, conn)
			if err != nil {
				t.Fatal(err)
			}
			moved = n
		}
		if to := <-attempts; to != "ada" {
			t.Errorf("came back: %s", to)
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if got := take(t, ctx, conn, "mails.dead", 1); got[0] != "nobody" {
			t.Errorf("left: %q", got)
		}
	})
}
