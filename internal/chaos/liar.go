package chaos

import (
	"bytes"
	"context"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/drivers/redis"
)

// liar is the Redis driver, but for one thing: it confirms before it sends. A run
// on it must find losses.
type liar struct{ redis.Driver }

func (l liar) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	c, err := l.Driver.Open(ctx, u, cfg)
	if err != nil {
		return nil, err
	}
	return lyingConn{c}, nil
}

type lyingConn struct{ driver.Conn }

func (c lyingConn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	p, err := c.Conn.Publisher(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return lyingPublisher{p}, nil
}

type lyingPublisher struct{ driver.Publisher }

func (p lyingPublisher) Publish(ctx context.Context, batch []*driver.Publishing, _ bool) {
	later := make([]*driver.Publishing, len(batch))
	for i, one := range batch {
		m := *one.Message
		m.Body = bytes.Clone(m.Body)
		later[i] = &driver.Publishing{Message: &m, ID: one.ID, Dedup: one.Dedup, Owner: nobody{}}
		one.Resolve(nil)
	}
	p.Publisher.Publish(ctx, later, false)
}

type nobody struct{}

func (nobody) Resolved(*driver.Publishing) {}
