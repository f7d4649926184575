// Hello is the program of the README: one exchange, one queue, one message. It
// goes on consuming until it is interrupted.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/routing"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	hello(ctx, polymq.URLFromEnv("mem://"), os.Stdout)
}

func hello(ctx context.Context, url string, out io.Writer) {
	conn := must(polymq.Open(ctx, url, nil)) // amqp://…, nats://…, redis://… or mem://
	check(conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*.paid"}},
	}))
	pub, sub := must(conn.Publisher(ctx, "orders", nil)), must(conn.Subscriber(ctx, "billing", nil))
	check(pub.Publish(ctx, &polymq.Message{Key: "order.eu.paid", Body: []byte("17 EUR")})) // billing has it
	check(sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		_, err := fmt.Fprintf(out, "%s: %s\n", d.Key, d.Body)
		return err // nil acknowledges, an error tries again later
	}))
	check(conn.Close(context.WithoutCancel(ctx)))
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
