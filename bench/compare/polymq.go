package main

import (
	"context"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"

	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
)

// viaPolymq is this library, by its public API and with its defaults, but for
// the window and the prefetch, which are what is measured.
type viaPolymq struct {
	closers
	conn   *polymq.Conn
	pubs   map[int]*polymq.Publisher // by window
	key    string
	queues []string
}

func openPolymq(ctx context.Context, s setup) (_ contender, err error) {
	p := &viaPolymq{pubs: map[int]*polymq.Publisher{}, queues: s.names("polymq")}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if p.conn, err = polymq.Open(ctx, s.url, nil); err != nil {
		return nil, err
	}
	p.add(func() { _ = p.conn.Close(context.Background()) })
	var t routing.Topology
	var exchange string
	p.key = p.queues[0]
	if s.queues > 0 {
		exchange, p.key = p.queues[0]+"_exchange", topicKey
		t.Exchanges = []routing.Exchange{{Name: exchange, Kind: routing.Topic}}
		p.add(func() { _ = p.conn.DeleteExchange(context.Background(), exchange, nil) })
	}
	for _, q := range p.queues {
		if err := p.conn.DeleteQueue(ctx, q, nil); err != nil {
			return nil, err
		}
		p.add(func() { _ = p.conn.DeleteQueue(context.Background(), q, nil) })
		t.Queues = append(t.Queues, routing.Queue{Name: q, Type: s.kind})
		if s.queues > 0 {
			t.Bindings = append(t.Bindings, routing.Binding{Exchange: exchange, Queue: q, Key: topicPattern})
		}
	}
	if err := p.conn.Declare(ctx, t); err != nil {
		return nil, err
	}
	for _, window := range []int{1, 256, maxWindow} {
		pub, err := p.conn.Publisher(ctx, exchange, &polymq.PublisherOptions{Window: max(window, callers)})
		if err != nil {
			return nil, err
		}
		p.pubs[window] = pub
	}
	return p, nil
}

func (p *viaPolymq) publish(ctx context.Context, l load, n int, body []byte) error {
	pub := p.pubs[l.window]
	return l.spread(n, func(n int) error {
		for range n {
			if err := pub.Publish(ctx, &polymq.Message{Key: p.key, Body: body}); err != nil {
				return err
			}
		}
		return nil
	}, func(n int) error {
		pending := make([]*polymq.Receipt, l.window)
		for i := range n + l.window {
			if r := pending[i%l.window]; r != nil {
				if err := r.Wait(ctx); err != nil {
					return err
				}
			}
			if pending[i%l.window] = nil; i < n {
				r, err := pub.PublishAsync(ctx, &polymq.Message{Key: p.key, Body: body})
				if err != nil {
					return err
				}
				pending[i%l.window] = r
			}
		}
		return nil
	})
}

func (p *viaPolymq) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	sub, err := p.conn.Subscriber(ctx, p.queues[0], &polymq.SubscriberOptions{Prefetch: prefetch})
	if err != nil {
		return time.Time{}, err
	}
	for more := true; more; {
		d, err := sub.Receive(ctx)
		if err != nil {
			return time.Time{}, err
		}
		more = each(d.Body)
		if err := d.Ack(ctx); err != nil {
			return time.Time{}, err
		}
	}
	// The last acknowledgements are on their way within 2 ms; Close sends them.
	settled := time.Now()
	return settled, sub.Close(ctx)
}

func (p *viaPolymq) purge(ctx context.Context) error {
	for _, q := range p.queues {
		if _, err := p.conn.Purge(ctx, q); err != nil {
			return err
		}
	}
	return nil
}
