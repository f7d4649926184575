package main

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// flowing is a contender in memory: a message is published, received and
// acknowledged, one after another.
type flowing struct {
	closers
	send func(body []byte) error
	take func() error
}

func (f *flowing) publish(_ context.Context, _ load, n int, body []byte) error {
	for range n {
		if err := f.send(body); err != nil {
			return err
		}
		if err := f.take(); err != nil {
			return err
		}
	}
	return nil
}

func (f *flowing) consume(context.Context, func([]byte) bool) (time.Time, error) {
	return time.Time{}, errors.ErrUnsupported
}

func (f *flowing) purge(context.Context) error { return nil }

// memoryRivals begin with Watermill, which the ratios are to: there is no client
// that would be raw. A channel is what is left without any contract.
var memoryRivals = []rival{
	{"watermill", false, openWatermillMemory(0)},
	{"watermill-tuned", false, openWatermillMemory(maxWindow)},
	{"polymq", false, openPolymqMemory},
	{"gocdk", true, openCDKMemory},
	{"channel", true, openChannel},
	{"copies", true, openCopies},
}

func openPolymqMemory(ctx context.Context, _ setup) (contender, error) {
	conn, err := polymq.Open(ctx, "mem://bench", nil)
	if err != nil {
		return nil, err
	}
	f := &flowing{}
	f.add(func() { _ = conn.Close(context.Background()) })
	if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "bench"}}}); err != nil {
		return nil, err
	}
	pub, err := conn.Publisher(ctx, "", nil)
	if err != nil {
		return nil, err
	}
	sub, err := conn.Subscriber(ctx, "bench", &polymq.SubscriberOptions{Prefetch: prefetch})
	if err != nil {
		return nil, err
	}
	f.send = func(body []byte) error { return pub.Publish(ctx, &polymq.Message{Key: "bench", Body: body}) }
	f.take = func() error {
		d, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		return d.Ack(ctx)
	}
	return f, nil
}

func openWatermillMemory(buffer int64) opener {
	return func(ctx context.Context, _ setup) (contender, error) {
		ps := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: buffer}, watermill.NopLogger{})
		f := &flowing{}
		f.add(func() { _ = ps.Close() })
		deliveries, err := ps.Subscribe(ctx, "bench")
		if err != nil {
			return nil, err
		}
		f.send = func(body []byte) error { return ps.Publish("bench", message.NewMessage(nextID(), body)) }
		f.take = func() error {
			m, ok := <-deliveries
			if !ok {
				return errors.New("the subscription ended")
			}
			m.Ack()
			return nil
		}
		return f, nil
	}
}

func openCopies(context.Context, setup) (contender, error) {
	ch := make(chan *polymq.Message, prefetch)
	return &flowing{
		send: func(body []byte) error {
			ch <- &polymq.Message{Key: "bench", Body: append([]byte(nil), body...)}
			return nil
		},
		take: func() error { <-ch; return nil },
	}, nil
}

func openChannel(context.Context, setup) (contender, error) {
	ch := make(chan []byte, prefetch)
	return &flowing{
		send: func(body []byte) error { ch <- body; return nil },
		take: func() error { <-ch; return nil },
	}, nil
}
