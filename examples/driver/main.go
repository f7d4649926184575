// Driver is your own driver in under 300 lines: package sealed, next door,
// encrypts the bodies of messages on any broker. This program sends a letter
// through it and looks at what the broker has of it.
//
//	go run ./examples/driver                                    # in memory
//	go run ./examples/driver -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/driver -url nats://localhost              # NATS JetStream
//	go run ./examples/driver -url redis://localhost             # Redis Streams
//
// It prints the same on all of them, and leaves nothing behind.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/examples/driver/sealed" // registers sealed+amqp and the others
	"github.com/polymq/polymq/routing"
)

func main() {
	url := flag.String("url", polymq.URLFromEnv("mem://"), "the broker; default $POLYMQ_URL, else memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := run(ctx, *url, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "driver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	conn, err := polymq.Open(ctx, "sealed+"+url, nil)
	if err != nil {
		return err
	}
	queue := "letters." + strings.ToLower(rand.Text()[:8]) // new in each run, so that two do not meet
	defer func() {
		// Cleaning up must also work when ctx has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, conn.DeleteQueue(ctx, queue, nil), conn.Close(ctx))
	}()
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: queue}}}); err != nil {
		return err
	}
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		return err
	}
	letter := []byte("meet me at noon")
	if err := pub.Publish(ctx, &polymq.Message{Key: queue, Body: letter}); err != nil {
		return err
	}

	// Without the driver, as the broker's administrator sees it.
	plain, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	onBroker, err := first(ctx, plain, queue, (*polymq.Delivery).Nack)
	if err := errors.Join(err, plain.Close(ctx)); err != nil {
		return err
	}
	readable := bytes.Contains(onBroker, letter)
	fmt.Fprintf(out, "on the broker: %d bytes, readable: %v\n", len(onBroker), readable)

	received, err := first(ctx, conn, queue, func(d *polymq.Delivery, ctx context.Context, _ time.Duration) error { return d.Ack(ctx) })
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "received: %s\n", received)
	if readable || !bytes.Equal(received, letter) {
		return errors.New("the letter was not sealed")
	}
	_, err = fmt.Fprintln(out, "ok: one letter, sealed on the way")
	return err
}

// first takes the first message of a queue, and settles it.
func first(ctx context.Context, conn *polymq.Conn, queue string, settle func(*polymq.Delivery, context.Context, time.Duration) error) ([]byte, error) {
	sub, err := conn.Subscriber(ctx, queue, nil)
	if err != nil {
		return nil, err
	}
	d, err := sub.Receive(ctx)
	if err == nil {
		err = settle(d, ctx, 0)
	}
	if err = errors.Join(err, sub.Close(context.WithoutCancel(ctx))); err != nil {
		return nil, err
	}
	return d.Body, nil
}
