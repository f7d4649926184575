// Schedule publishes jobs that are due later: after a while, at a time, and
// again and again. The broker keeps them meanwhile: whoever published them may
// end.
//
//	go run ./examples/schedule                                    # in memory
//	go run ./examples/schedule -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/schedule -url nats://localhost              # NATS JetStream
//	go run ./examples/schedule -url redis://localhost             # Redis Streams
//
// A job comes no earlier than it is due, and not much later while some process
// is connected. Jobs that are due at about the same time come in no promised
// order, so the program prints them by name. It prints the same on all
// backends, and leaves nothing of its own behind (RabbitMQ keeps the queues
// polymq.delay.*, which all delayed messages of a vhost share).
package main

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
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
		fmt.Fprintln(os.Stderr, "schedule:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	conn, err := polymq.Open(ctx, url, &polymq.Options{Require: []polymq.Feature{polymq.FeatureDelay}})
	if err != nil {
		return err
	}
	queue := "jobs." + strings.ToLower(rand.Text()[:8]) // new in each run, so that two do not meet
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

	s := &scheduler{queue: queue, pub: pub, due: map[string]time.Time{}}
	now := time.Now()
	err = errors.Join(
		s.after(ctx, "remind ada", 300*time.Millisecond),
		s.after(ctx, "remind bob", 0),
		s.at(ctx, "close the month", now.Add(500*time.Millisecond)),
		s.every(ctx, "sweep", 100*time.Millisecond, 1),
	)
	if err != nil {
		return err
	}

	// Two reminders, the month, and three times the broom.
	ran, early, err := s.work(ctx, conn, 6)
	if err != nil {
		return err
	}
	slices.Sort(ran)
	for _, job := range ran {
		fmt.Fprintln(out, job)
	}
	_, err = fmt.Fprintf(out, "ok: %d jobs ran, %d of them too early\n", len(ran), early)
	return err
}
