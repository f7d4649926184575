// Quickstart routes a log file through three exchanges to six queues, consumes
// them, and checks that every message arrived where it belongs:
//
//	go run ./examples/quickstart                                    # in memory
//	go run ./examples/quickstart -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/quickstart -url nats://localhost              # NATS JetStream
//	go run ./examples/quickstart -url redis://localhost             # Redis Streams
//
// It prints the same on all of them. It leaves nothing behind.
package main

import (
	"cmp"
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
	"text/tabwriter"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/routing"
)

func main() {
	url := flag.String("url", polymq.URLFromEnv("mem://quickstart"), "the broker; default $POLYMQ_URL, else memory")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := run(ctx, *url, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	// The names are new in each run, so that two runs do not meet.
	prefix := "quickstart." + strings.ToLower(rand.Text()[:8]) + "."
	topology := declaration(prefix)
	defer func() {
		// Cleaning up must also work when ctx has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = cmp.Or(err, remove(ctx, conn, topology), conn.Close(ctx))
	}()
	if err := conn.Declare(ctx, topology); err != nil {
		return err
	}

	events := parse(log)
	if err := publish(ctx, conn, prefix+"all", events); err != nil {
		return err
	}

	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "QUEUE\tEXCHANGE\tTAKES\tMESSAGES\tLAST")
	delivered := 0
	for _, r := range routes {
		want := r.ids(events)
		got, last, err := consume(ctx, conn, prefix+r.queue, len(want))
		if err != nil {
			return fmt.Errorf("queue %s, %d of %d messages: %w", r.queue, len(got), len(want), err)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("queue %s got the lines %v, want %v", r.queue, got, want)
		}
		extra, err := conn.Purge(ctx, prefix+r.queue)
		if err != nil {
			return err
		}
		if extra > 0 {
			return fmt.Errorf("queue %s got %d messages too many", r.queue, extra)
		}
		delivered += len(got)
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", r.queue, r.exchange, r.takes, len(got), last)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "ok: %d published, %d delivered\n", len(events), delivered)
	return err
}

// publish returns once every queue has every message that it takes.
func publish(ctx context.Context, conn *polymq.Conn, exchange string, events []event) error {
	pub, err := conn.Publisher(ctx, exchange, nil)
	if err != nil {
		return err
	}
	msgs := make([]*polymq.Message, len(events))
	for i, e := range events {
		msgs[i] = &polymq.Message{
			ID:   e.id,
			Key:  e.key,
			Body: []byte(e.line),
			Header: polymq.Header{
				"action": e.action, "arch": e.arch, "package": e.name,
			},
		}
	}
	return errors.Join(pub.Publish(ctx, msgs...), pub.Close(ctx))
}

// consume takes n messages from a queue and acknowledges each. It returns their
// IDs and the last one's key.
func consume(ctx context.Context, conn *polymq.Conn, queue string, n int) (ids []string, last string, err error) {
	sub, err := conn.Subscriber(ctx, queue, nil)
	if err != nil {
		return nil, "", err
	}
	defer func() { err = cmp.Or(err, sub.Close(context.WithoutCancel(ctx))) }()
	for len(ids) < n {
		d, err := sub.Receive(ctx)
		if err != nil {
			return ids, last, err
		}
		if err := d.Ack(ctx); err != nil {
			return ids, last, err
		}
		ids, last = append(ids, d.ID), d.Key
	}
	return ids, last, nil
}

// remove deletes what declaration declared.
func remove(ctx context.Context, conn *polymq.Conn, t routing.Topology) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var errs []error
	for _, q := range t.Queues {
		errs = append(errs, conn.DeleteQueue(ctx, q.Name, nil))
	}
	for _, e := range t.Exchanges {
		errs = append(errs, conn.DeleteExchange(ctx, e.Name, nil))
	}
	return errors.Join(errs...)
}
