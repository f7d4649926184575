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

// declareCustom declares the exchanges of kinds that plugins have. A broker
// that does not know one closes the connection, so it is asked on one that
// nobody else uses.
func (c *Conn) declareCustom(ctx context.Context, exchanges []routing.Exchange, args []amqp091.Table) error {
	for i, x := range exchanges {
		if !x.Kind.Custom() {
			continue
		}
		err := c.apart(ctx, func(ch *amqp091.Channel) error {
			return ch.ExchangeDeclare(x.Name, string(x.Kind), !x.Transient, false, false, false, args[i])
		})
		if err != nil {
			return fmt.Errorf("exchange %q: %w", x.Name, lackingPlugin(x.Kind, wrap(lacking(makeExchange, err))))
		}
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

// apart does f on a connection of its own.
func (c *Conn) apart(ctx context.Context, f func(*amqp091.Channel) error) error {
	var errs []error
	for _, addr := range c.settings.addrs {
		conn, _, err := c.settings.dial(ctx, addr, "declare", func(*wire) {})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", addr, err))
			continue
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
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
