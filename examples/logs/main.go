// Logs is a log pipeline: three services publish what they log, and each sink
// gets the lines that it asked for, by routing key or by headers. Who publishes
// knows nothing of the sinks.
//
//	go run ./examples/logs                                    # in memory
//	go run ./examples/logs -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/logs -url nats://localhost              # NATS JetStream
//	go run ./examples/logs -url redis://localhost             # Redis Streams
//
//	logs (topic) ──*.error──────────────────────────▶ alerts
//	   │         ──auth.#───────────────────────────▶ auth
//	   └────#────▶ tags (headers) ──audit, region=eu─▶ audit
//	                              ──paid or slow─────▶ review
//
// The lines of one service are in their order in each sink; those of different
// services come in between as they may, so they are printed by service. It
// prints the same on all backends, and leaves nothing behind.
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
	"strings"
	"sync"
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
		fmt.Fprintln(os.Stderr, "logs:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	prefix := "logs." + strings.ToLower(rand.Text()[:8]) // new in each run, so that two do not meet
	pipeline := topology(prefix)
	defer func() { err = errors.Join(err, remove(ctx, conn, pipeline)) }()
	if err := conn.Declare(ctx, pipeline); err != nil {
		return err
	}
	want, err := expect(pipeline, prefix)
	if err != nil {
		return err
	}

	var all sync.WaitGroup
	errs := make(chan error, len(services)+len(sinks))
	got := make([][]*polymq.Delivery, len(sinks))
	for i, s := range sinks {
		all.Go(func() {
			var err error
			if got[i], err = drain(ctx, conn, prefix+"."+s.name, want[prefix+"."+s.name]); err != nil {
				errs <- fmt.Errorf("sink %s: %w", s.name, err)
			}
		})
	}
	for _, s := range services {
		all.Go(func() {
			if err := s.log(ctx, conn, prefix); err != nil {
				errs <- fmt.Errorf("service %s: %w", s.name, err)
			}
		})
	}
	all.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	if err != nil {
		return err
	}

	total := 0
	for i, s := range sinks {
		total += len(got[i])
		fmt.Fprintf(out, "%s (%s)\n", s.name, s.takes)
		for _, service := range services {
			for _, d := range got[i] {
				if d.AppID == service.name {
					fmt.Fprintf(out, "  %s: %s\n", d.Key, d.Body)
				}
			}
		}
	}
	_, err = fmt.Fprintf(out, "ok: 3 services, %d sinks, %d lines delivered\n", len(sinks), total)
	return err
}

// drain takes n lines from a sink's queue.
func drain(ctx context.Context, conn *polymq.Conn, queue string, n int) (ds []*polymq.Delivery, err error) {
	sub, err := conn.Subscriber(ctx, queue, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = cmp.Or(err, sub.Close(context.WithoutCancel(ctx))) }()
	for len(ds) < n {
		d, err := sub.Receive(ctx)
		if err != nil {
			return ds, err
		}
		if err := d.Ack(ctx); err != nil {
			return ds, err
		}
		ds = append(ds, d)
	}
	return ds, nil
}

// remove deletes what was declared and closes; it must also work when ctx has
// ended.
func remove(ctx context.Context, conn *polymq.Conn, t routing.Topology) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var errs []error
	for _, q := range t.Queues {
		errs = append(errs, conn.DeleteQueue(ctx, q.Name, nil))
	}
	for _, x := range t.Exchanges {
		errs = append(errs, conn.DeleteExchange(ctx, x.Name, nil))
	}
	return errors.Join(append(errs, conn.Close(ctx))...)
}
