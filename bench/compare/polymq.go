package main

import (
	"context"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"

	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
)

type viaPolymq struct {
	conn *polymq.Conn
	pub  *polymq.Publisher
}

const polymqQueue = "bench"

func newPolymq(ctx context.Context, url, kind string) (contender, error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	q := routing.Queue{Name: polymqQueue, Type: kind}
	if err := conn.DeleteQueue(ctx, polymqQueue, nil); err != nil {
		return nil, err
	}
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{q}}); err != nil {
		return nil, err
	}
	pub, err := conn.Publisher(ctx, "", &polymq.PublisherOptions{Window: window})
	return &viaPolymq{conn, pub}, err
}

func (p *viaPolymq) publish(ctx context.Context, op operation, n int, body []byte) error {
	switch op {
	case publishOne:
		for range n {
			if err := p.pub.Publish(ctx, &polymq.Message{Key: polymqQueue, Body: body}); err != nil {
				return err
			}
		}
	case publishPipelined:
		receipts := make([]*polymq.Receipt, 0, n)
		for range n {
			r, err := p.pub.PublishAsync(ctx, &polymq.Message{Key: polymqQueue, Body: body})
			if err != nil {
				return err
			}
			receipts = append(receipts, r)
		}
		if err := p.pub.Flush(ctx); err != nil {
			return err
		}
		for _, r := range receipts {
			if err := r.Err(); err != nil {
				return err
			}
		}
	case publishCallers:
		return eachOf(callers, n, func(n int) error { return p.publish(ctx, publishOne, n, body) })
	case memoryLoop:
		sub, err := p.conn.Subscriber(ctx, polymqQueue, &polymq.SubscriberOptions{Prefetch: prefetch})
		if err != nil {
			return err
		}
		defer sub.Close(ctx)
		for range n {
			if err := p.pub.Publish(ctx, &polymq.Message{Key: polymqQueue, Body: body}); err != nil {
				return err
			}
			d, err := sub.Receive(ctx)
			if err != nil {
				return err
			}
			if err := d.Ack(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *viaPolymq) consume(ctx context.Context, n int) error {
	sub, err := p.conn.Subscriber(ctx, polymqQueue, &polymq.SubscriberOptions{Prefetch: prefetch})
	if err != nil {
		return err
	}
	for range n {
		d, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		if err := d.Ack(ctx); err != nil {
			return err
		}
	}
	return sub.Close(ctx)
}

func (p *viaPolymq) purge(ctx context.Context) error {
	_, err := p.conn.Purge(ctx, polymqQueue)
	return err
}

func (p *viaPolymq) close() {
	_ = p.conn.DeleteQueue(context.Background(), polymqQueue, nil)
	_ = p.conn.Close(context.Background())
}
