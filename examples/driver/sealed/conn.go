package sealed

import (
	"context"
	"crypto/cipher"
	"fmt"
	"maps"
	"time"

	"github.com/polymq/polymq/driver"
)

// conn is a connection whose publishers seal and whose subscribers open. All
// else is the inner one's.
type conn struct {
	driver.Conn
	seal cipher.AEAD
}

// Features says that a body must leave room for its seal.
func (c *conn) Features() driver.Features {
	f := c.Conn.Features()
	f.Backend += ", sealed"
	f.MaxMessageBytes -= c.seal.Overhead()
	return f
}

// Restores is what an inner driver may say beside (driver.Restored).
func (c *conn) Restores(queue string) bool {
	r, ok := c.Conn.(driver.Restored)
	return ok && r.Restores(queue)
}

func (c *conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	p, err := c.Conn.Publisher(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &publisher{p, c.seal}, nil
}

func (c *conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	s, err := c.Conn.Subscriber(ctx, cfg)
	if err != nil {
		return nil, err
	}
	sealed := &subscriber{s, c.seal}
	if d, ok := s.(driver.Drainer); ok {
		return &drainer{sealed, d}, nil
	}
	return sealed, nil
}

// publisher seals what it publishes.
type publisher struct {
	driver.Publisher
	seal cipher.AEAD
}

// Publish gives the inner publisher copies of the messages. Each publishing is
// the driver's until it is resolved, and the application's message stays as it is.
func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	for _, x := range batch {
		m := *x.Message
		m.Body = p.seal.Seal(nil, nil, m.Body, []byte(x.ID))
		x.Message = &m
	}
	p.Publisher.Publish(ctx, batch, wait)
}

// Broken is the header of a message whose body does not open.
const Broken = "polymq-sealed"

// subscriber opens what it receives.
type subscriber struct {
	driver.Subscriber
	seal cipher.AEAD
}

// Receive hands out copies that lead back to the inner deliveries: those stay
// sealed, since the inner driver may store them again, as dead letters.
func (s *subscriber) Receive(ctx context.Context, buf []*driver.Delivery) (int, error) {
	n, err := s.Subscriber.Receive(ctx, buf)
	for i, inner := range buf[:n] {
		d := *inner
		d.Tag = inner
		body, broken := s.seal.Open(nil, nil, d.Message.Body, []byte(d.Message.ID))
		if d.Message.Body = body; body == nil {
			d.Message.Body = []byte{}
		}
		if broken != nil {
			d.Message.Header = maps.Clone(d.Message.Header)
			if d.Message.Header == nil {
				d.Message.Header = driver.Header{}
			}
			d.Message.Header[Broken] = fmt.Sprintf("does not open: %v", broken)
		}
		buf[i] = &d
	}
	return n, err
}

func (s *subscriber) Settle(ctx context.Context, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
	return s.Subscriber.Settle(ctx, d.Tag.(*driver.Delivery), o, delay)
}

func (s *subscriber) Extend(ctx context.Context, d *driver.Delivery) error {
	return s.Subscriber.Extend(ctx, d.Tag.(*driver.Delivery))
}

// drainer is a subscriber of a driver that can stop taking.
type drainer struct {
	*subscriber
	driver.Drainer
}
