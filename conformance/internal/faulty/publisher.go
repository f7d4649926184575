package faulty

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
)

type publisher struct {
	driver.Publisher
	c     *conn
	cfg   driver.PublisherConfig
	count atomic.Int64
}

func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	if p.c.f.publish != nil {
		p.c.f.publish(ctx, p, batch, wait)
		return
	}
	kept := slices.Clone(batch)
	p.c.l.send(func() { p.Publisher.Publish(ctx, kept, wait) })
}

func (p *publisher) Close(ctx context.Context) error {
	if err := p.c.l.wait(ctx); err != nil {
		_ = p.Publisher.Close(context.Background())
		return err
	}
	return p.Publisher.Close(ctx)
}

// each publishes a batch with another message or ID in place of each.
func (p *publisher) each(ctx context.Context, batch []*driver.Publishing, wait bool, change func(m *driver.Message, id *string)) {
	out := make([]*driver.Publishing, len(batch))
	for i, b := range batch {
		m, id := *b.Message, b.ID
		change(&m, &id)
		out[i] = &driver.Publishing{Message: &m, ID: id, Owner: outcome{b, nil}}
	}
	p.Publisher.Publish(ctx, out, wait)
}

// outcome hands an outcome on, changed.
type outcome struct {
	to     *driver.Publishing
	change func(err error) error
}

func (o outcome) Resolved(p *driver.Publishing) {
	err := p.Err()
	if o.change != nil {
		err = o.change(err)
	}
	o.to.Resolve(err)
}

// outcomes publishes a batch and changes what is reported.
func (p *publisher) outcomes(ctx context.Context, batch []*driver.Publishing, wait bool, change func(b *driver.Publishing, err error) error) {
	out := make([]*driver.Publishing, len(batch))
	for i, b := range batch {
		out[i] = &driver.Publishing{Message: b.Message, ID: b.ID, Owner: outcome{b, func(err error) error { return change(b, err) }}}
	}
	p.Publisher.Publish(ctx, out, wait)
}

// ignored is an owner that does not care.
type ignored struct{}

func (ignored) Resolved(*driver.Publishing) {}

// aside publishes a message that nobody waits for.
func aside(c driver.Conn, exchange string, m driver.Message, id string) error {
	ctx := context.Background()
	p, err := c.Publisher(ctx, driver.PublisherConfig{Exchange: exchange, DropUnroutable: true})
	if err != nil {
		return err
	}
	p.Publish(ctx, []*driver.Publishing{{Message: &m, ID: id, Owner: ignored{}}}, true)
	return p.Close(ctx)
}
