package guides

import (
	"context"
	"errors"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func before091(ctx context.Context, url string) error {
	conn, err := amqp091.Dial(url)
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare("orders", "topic", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare("billing", true, false, false, false, amqp091.Table{"x-queue-type": "quorum"}); err != nil {
		return err
	}
	if err := ch.QueueBind("billing", "order.*", "orders", false, nil); err != nil {
		return err
	}

	if err := ch.Confirm(false); err != nil {
		return err
	}
	returns := ch.NotifyReturn(make(chan amqp091.Return, 1))
	confirm, err := ch.PublishWithDeferredConfirmWithContext(ctx, "orders", "order.paid", true, false,
		amqp091.Publishing{DeliveryMode: amqp091.Persistent, Body: []byte("17 EUR")})
	if err != nil {
		return err
	}
	acked, err := confirm.WaitContext(ctx)
	if err != nil {
		return err
	}
	select {
	case r := <-returns: // comes before the confirm
		return errors.New("unroutable: " + r.RoutingKey)
	default:
		if !acked {
			return errors.New("nacked")
		}
	}

	if err := ch.Qos(32, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.ConsumeWithContext(ctx, "billing", "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	d := <-deliveries
	return d.Ack(false)
	// And when the connection is lost: all of it again.
}

func after091(ctx context.Context, url string) error {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	err = conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*"}},
	})
	if err != nil {
		return err
	}

	pub, err := conn.Publisher(ctx, "orders", nil)
	if err != nil {
		return err
	}
	err = pub.Publish(ctx, &polymq.Message{Key: "order.paid", Body: []byte("17 EUR")})
	if err != nil {
		return err // ErrUnroutable, ErrRejected, ErrUnconfirmed, ...
	}

	sub, err := conn.Subscriber(ctx, "billing", nil) // holds 32 at most
	if err != nil {
		return err
	}
	d, err := sub.Receive(ctx)
	if err != nil {
		return err
	}
	return d.Ack(ctx)
}

// Both in one namespace: what the one declares the other finds.
func TestFromAMQP091(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	if err := before091(within(t), amqpOnly(url)); err != nil {
		t.Fatal(err)
	}
	if err := after091(within(t), url); err != nil {
		t.Fatal(err)
	}
	fresh(t, func(t *testing.T, ctx context.Context, url string) {
		if err := after091(ctx, url); err != nil {
			t.Fatal(err)
		}
	}, "mem", "nats", "redis")
}

// amqpOnly is the URL without the options that only polymq knows.
func amqpOnly(url string) string {
	plain, _, _ := strings.Cut(url, "?")
	return plain
}
