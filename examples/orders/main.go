// Orders takes payments for orders, the way a shop does: a declined card is
// given up at once, a bank that does not answer is tried again, and what could
// not be paid waits among the dead letters, from where it is sent back once
// the bank works.
//
//	go run ./examples/orders                                    # in memory
//	go run ./examples/orders -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/orders -url nats://localhost              # NATS JetStream
//	go run ./examples/orders -url redis://localhost             # Redis Streams
//
//	             key order.placed                rejected, or three attempts
//	orders (topic) ────────────────▶ payments ──────────────────────▶ failed
//	   ▲    └──────────────────────▶ shipping            Redrive │
//	   │         key order.paid                 ◀────────────────┘
//	   └──── the payments' handler publishes order.paid
//
// It prints the same on all of them, and leaves nothing behind.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
)

func main() {
	url := flag.String("url", polymq.URLFromEnv("mem://"), "the broker; default $POLYMQ_URL, else memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := run(ctx, *url, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "orders:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	s, err := open(ctx, url, out)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close(ctx)) }()

	if err := s.place(ctx, "A-1", "A-2", "A-3", "A-4"); err != nil {
		return err
	}
	bank := &bank{declines: "A-2", busy: map[string]int{"A-3": 2, "A-4": maxAttempts}}
	ends := make(chan end, 10)
	stopped := make(chan error, 1)
	working, stop := context.WithCancel(ctx)
	go func() { stopped <- s.takePayments(working, bank, ends) }()
	defer func() {
		stop()
		err = errors.Join(err, <-stopped)
	}()
	if err := s.await(ctx, ends, 4); err != nil {
		return err
	}

	fmt.Fprintln(out, "the bank is back")
	moved, err := s.conn.Redrive(ctx, s.failed, &polymq.RedriveOptions{
		Max: 1, // returns as soon as it is moved
		Filter: func(d *polymq.Delivery) bool {
			return d.Deaths()[0].Reason == "delivery_limit" // nobody declined it
		},
		Idle: 10 * time.Second,
	})
	if err != nil {
		return err
	}
	if err := s.await(ctx, ends, moved); err != nil {
		return err
	}

	shipped, err := s.ship(ctx, 3)
	if err != nil {
		return err
	}
	lost, err := s.giveUp(ctx, 1)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "ok: 4 orders, %d shipped, %d given up, %d came back from the dead letters\n", shipped, lost, moved)
	return err
}
