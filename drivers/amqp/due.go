package amqp

import (
	"context"
	"errors"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// A message that is published with a delay passes the levels, and comes from
// exchangeOut into dueQueue. A mover publishes it from there to its exchange,
// or, where nothing takes it, to exchangeLost, which leads to driver.UnroutableQueue.
const exchangeLost = delayPrefix + "unroutable"

// ensureDue declares where delayed messages come to when they are due, and sees
// to it that this connection moves them on.
func (c *Conn) ensureDue(ctx context.Context) error {
	d := &c.delays
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if !d.due {
		err := c.do(ctx, func(ch *channel) error {
			form, err := formOf(routing.Queue{Name: dueQueue, Type: typeQuorum}, c.version)
			if err != nil {
				return err
			}
			err = form.declare(ch, dueQueue)
			if errors.Is(wrap(err), driver.ErrConflict) {
				if form.older(err) && !c.endlessByPolicy(ctx, dueQueue) {
					c.cfg.Logger.Warn("polymq: RabbitMQ 4 can drop delayed messages that cannot be moved on for a while from this queue, which RabbitMQ 3 made, unless a policy gives it the delivery-limit of the documentation", "scheme", "amqp", "queue", dueQueue, "delivery-limit", endless)
				}
				err = ch.reopen()
			}
			if err != nil {
				return err
			}
			return ch.QueueBind(dueQueue, "", exchangeOut, false, amqp091.Table{"x-match": "all", headerDue: true})
		})
		if err != nil {
			return delayError(err)
		}
		d.due = true
	}
	c.startMover()
	return nil
}

// ensureDueAgain makes what a mover has found to be gone stand again: what is in
// the levels was confirmed and comes there.
func (c *Conn) ensureDueAgain() bool {
	c.delays.forget()
	return c.ensureLevels(c.ctx, 0) == nil && c.ensureDue(c.ctx) == nil
}

// ensureUnroutable declares where messages go that nothing takes when they are
// due. The queue is like any other, and may stand as somebody wants it.
func (c *Conn) ensureUnroutable(ctx context.Context) error {
	return c.do(ctx, func(ch *channel) error {
		if err := ch.ExchangeDeclare(exchangeLost, "fanout", true, false, false, false, nil); err != nil {
			return err
		}
		form, err := formOf(routing.Queue{Name: driver.UnroutableQueue}, c.version)
		if err == nil {
			err = form.declare(ch, driver.UnroutableQueue)
		}
		if errors.Is(wrap(err), driver.ErrConflict) {
			err = ch.reopen()
		}
		if err != nil {
			return err
		}
		return ch.QueueBind(driver.UnroutableQueue, "", exchangeLost, false, nil)
	})
}

// toMover marks a copy that a mover is to get. On the way to it all are equal: one
// with a higher priority would hold up, or pass, another.
func toMover(m *driver.Message) {
	if m.Header[headerDue] = true; m.Priority > 0 {
		m.Header[headerPriority], m.Priority = int64(m.Priority), 0
	}
}
