package amqp

import (
	"context"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/rabbitmq"
)

// publisher implements driver.Publisher; the work is the outbox's.
type publisher struct {
	out      *outbox
	exchange string
	drop     bool
	own      bool // what it publishes has headers of the driver's
	closed   atomic.Bool
	// queue takes every message, whatever the bindings; bound says that it was
	// seen to be reachable.
	queue string
	bound atomic.Bool
	// What queue is, once learned; of the goroutine that dispatches.
	learned bool
	kind    queueKind
	// parent is the application's publisher, of one that sends delayed copies.
	parent *publisher
}

// Publisher implements driver.Conn.
func (c *Conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	if c.ctx.Err() != nil {
		return nil, driver.ErrClosed
	}
	return &publisher{out: c.out, exchange: rabbitmq.ExchangeName(cfg.Exchange), queue: cfg.Queue, drop: cfg.DropUnroutable}, nil
}

// Publish never blocks, whatever the state of the connection.
func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	frame := int(p.out.frame.Load())
	fit := 0
	for i, m := range batch {
		if err := unfit(m.Message, m.ID, frame, p.own); err != nil {
			p.out.publish(p, batch[fit:i], false) // in order
			fit = i + 1
			m.Resolve(err)
		} else if m.Message.Delay > 0 || p.queue != "" {
			p.out.publish(p, batch[fit:i], false)
			fit = i + 1
			p.schedule(m, p.exchange)
		}
	}
	p.out.publish(p, batch[fit:], wait)
}

// Close implements driver.Publisher.
func (p *publisher) Close(ctx context.Context) error {
	p.out.abandon(p, driver.ErrUnconfirmed)
	p.out.c.scheduled.abandon(p, driver.ErrUnconfirmed)
	return nil
}
