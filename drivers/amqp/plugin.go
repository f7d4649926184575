package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/routing"
)

// plugins are where kinds come from that RabbitMQ does not have by itself.
var plugins = map[routing.Kind]string{routing.ConsistentHash: "rabbitmq_consistent_hash_exchange"}

// declareCustom declares an exchange of a kind that a plugin has. A broker that
// does not know it closes the connection, so it is asked on one that
// nobody else uses.
func (c *Conn) declareCustom(ctx context.Context, x routing.Exchange, args amqp091.Table) error {
	err := c.apart(ctx, func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare(x.Name, string(x.Kind), !x.Transient, false, false, false, args)
	})
	if err != nil {
		return lackingPlugin(x.Kind, wrap(lacking(makeExchange, err)))
	}
	return nil
}

// lackingPlugin adds what to do where the broker does not know a kind.
func lackingPlugin(kind routing.Kind, err error) error {
	var e *amqp091.Error
	if !errors.As(err, &e) || !strings.Contains(e.Reason, "exchange type") {
		return err
	}
	plugin := plugins[kind]
	if plugin == "" {
		plugin = "PLUGIN (the one that has it)"
	}
	return fmt.Errorf("%w: Kind: this RabbitMQ has no exchanges of the kind %q: run rabbitmq-plugins enable %s on every node: %w", errors.ErrUnsupported, kind, plugin, err)
}

// apart does f on a connection of its own, which ends with ctx at the latest.
func (c *Conn) apart(ctx context.Context, f func(*amqp091.Channel) error) error {
	var errs []error
	for _, addr := range c.settings.addrs {
		var w *wire
		conn, _, err := c.settings.dial(ctx, addr, "declare", func(made *wire) { w = made })
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", addr, err))
			continue
		}
		// The socket's, for amqp091's own would wait for the broker's answer.
		defer context.AfterFunc(ctx, w.cut)()
		defer conn.Close()
		ch, err := conn.Channel()
		if err == nil {
			err = f(ch)
		}
		if err != nil && ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return errors.Join(errs...)
}
