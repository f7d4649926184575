package amqp

import (
	"context"

	"github.com/polymq/polymq/driver"
)

// publisher implements driver.Publisher; the work is the outbox's.
type publisher struct {
	out      *outbox
	exchange string
	drop     bool
	closed   bool // guarded by the outbox's mutex
}

// Publisher implements driver.Conn.
func (c *Conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	if c.ctx.Err() != nil {
		return nil, driver.ErrClosed
	}
	return &publisher{out: c.out, exchange: exchangeName(cfg.Exchange), drop: cfg.DropUnroutable}, nil
}

// Publish never blocks, whatever the state of the connection.
func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	for i, m := range batch {
		if err := unfit(m.Message, m.ID); err != nil {
			// Rare: the batch goes on without it, in order.
			p.out.publish(p, batch[:i])
			m.Resolve(err)
			p.Publish(ctx, batch[i+1:], wait)
			return
		}
	}
	p.out.publish(p, batch)
}

// Close implements driver.Publisher.
func (p *publisher) Close(ctx context.Context) error {
	p.out.abandon(p, driver.ErrUnconfirmed)
	return nil
}
