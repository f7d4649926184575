package main

import (
	"context"
	"fmt"
	"io"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// process is one process of the service.
type process struct {
	name string
	conn *polymq.Conn
	sub  *polymq.Subscriber
}

// start connects, and listens from the moment on that it returns.
func start(ctx context.Context, url, exchange, name string) (*process, error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	sub, err := conn.SubscribeTemporary(ctx, nil, routing.Binding{Exchange: exchange})
	if err != nil {
		_ = conn.Close(ctx) // of no use
		return nil, err
	}
	return &process{name, conn, sub}, nil
}

// learn takes n settings, in the order in which they were published.
func (p *process) learn(ctx context.Context, out io.Writer, n int) error {
	for range n {
		d, err := p.sub.Receive(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s: %s\n", p.name, d.Body)
		if err := d.Ack(ctx); err != nil {
			return err
		}
	}
	return nil
}

// stop ends the process, and its queue with it.
func (p *process) stop(ctx context.Context) error { return p.conn.Close(context.WithoutCancel(ctx)) }
