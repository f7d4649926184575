// Broadcast tells every process of a service about new settings. Each process
// has a temporary queue of its own, so each gets all of it; a queue ends with
// its process, and nothing gathers for one that is gone.
//
//	go run ./examples/broadcast                                    # in memory
//	go run ./examples/broadcast -url amqp://guest:guest@localhost  # RabbitMQ
//	go run ./examples/broadcast -url nats://localhost              # NATS JetStream
//	go run ./examples/broadcast -url redis://localhost             # Redis Streams
//
// The processes are connections here, so that one program shows them all. It
// prints the same on all backends, and leaves nothing behind.
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
		fmt.Fprintln(os.Stderr, "broadcast:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, url string, out io.Writer) (err error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	exchange := "settings." + strings.ToLower(rand.Text()[:8]) // new in each run, so that two do not meet
	defer func() {
		// Cleaning up must also work when ctx has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
		defer cancel()
		err = errors.Join(err, conn.DeleteExchange(ctx, exchange, nil), conn.Close(ctx))
	}()
	err = conn.Declare(ctx, routing.Topology{Exchanges: []routing.Exchange{{Name: exchange, Kind: routing.Fanout}}})
	if err != nil {
		return err
	}
	settings, err := conn.Publisher(ctx, exchange, nil)
	if err != nil {
		return err
	}
	tell := func(text string) error {
		return settings.Publish(ctx, &polymq.Message{Body: []byte(text)})
	}

	var running []*process
	for _, name := range []string{"one", "two", "three"} {
		p, err := start(ctx, url, exchange, name)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.stop(ctx)) }() // stopping twice is nothing
		running = append(running, p)
	}

	// When Publish returns, every process's queue has it.
	if err := errors.Join(tell("color=blue"), tell("limit=20")); err != nil {
		return err
	}
	for _, p := range running {
		if err := p.learn(ctx, out, 2); err != nil {
			return err
		}
	}

	if err := running[2].stop(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "three has left")
	if err := tell("color=red"); err != nil {
		return err
	}
	for _, p := range running[:2] {
		if err := p.learn(ctx, out, 1); err != nil {
			return err
		}
		if err := p.stop(ctx); err != nil {
			return err
		}
	}

	fmt.Fprintln(out, "all have left")
	if err := tell("color=green"); !errors.Is(err, polymq.ErrUnroutable) {
		return fmt.Errorf("somebody still listens: %v", err)
	}
	_, err = fmt.Fprintln(out, "ok: 3 processes, 8 settings learned, and nobody is left to hear the last one")
	return err
}
