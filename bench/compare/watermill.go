package main

import (
	"context"
	"errors"
	"time"

	"github.com/ThreeDotsLabs/watermill"
	wmamqp "github.com/ThreeDotsLabs/watermill-amqp/v3/pkg/amqp"
	wmjetstream "github.com/ThreeDotsLabs/watermill-nats/v2/pkg/jetstream"
	wmredis "github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/gochannel"
	amqp "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// viaWatermill is Watermill with the settings that make it fastest at the same
// contract: confirmed publishes, pooled channels, a prefetch of 256,
// acknowledgements that are not waited for. Each Subscribe has one message in
// flight, whatever the prefetch.
type viaWatermill struct {
	pub        message.Publisher
	newSub     func() (message.Subscriber, error) // one a round, since ending a subscription takes its time
	topic      string
	purgeQueue func(ctx context.Context) error
	closers    []func()
}

func newMessage(body []byte) *message.Message {
	return message.NewMessage(nextID(), body)
}

func (w *viaWatermill) publish(ctx context.Context, op operation, n int, body []byte) error {
	switch op {
	case publishOne:
		for range n {
			if err := w.pub.Publish(w.topic, newMessage(body)); err != nil {
				return err
			}
		}
	case publishPipelined:
		batch := make([]*message.Message, 0, window)
		for n > 0 {
			batch = batch[:0]
			for range min(n, window) {
				batch = append(batch, newMessage(body))
			}
			if err := w.pub.Publish(w.topic, batch...); err != nil {
				return err
			}
			n -= len(batch)
		}
	case publishCallers:
		return eachOf(callers, n, func(n int) error { return w.publish(ctx, publishOne, n, body) })
	case memoryLoop:
		sub, err := w.newSub()
		if err != nil {
			return err
		}
		ctx, stop := context.WithCancel(ctx)
		defer stop()
		deliveries, err := sub.Subscribe(ctx, w.topic)
		if err != nil {
			return err
		}
		for range n {
			if err := w.pub.Publish(w.topic, newMessage(body)); err != nil {
				return err
			}
			(<-deliveries).Ack()
		}
	}
	return nil
}

func (w *viaWatermill) consume(ctx context.Context, n int) error {
	sub, err := w.newSub()
	if err != nil {
		return err
	}
	deliveries, err := sub.Subscribe(ctx, w.topic)
	if err != nil {
		return err
	}
	for range n {
		select {
		case m, ok := <-deliveries:
			if !ok {
				return errors.New("the subscription ended")
			}
			m.Ack()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return sub.Close()
}

func (w *viaWatermill) purge(ctx context.Context) error {
	if w.purgeQueue == nil {
		return nil
	}
	return w.purgeQueue(ctx)
}

func (w *viaWatermill) close() {
	_ = w.pub.Close()
	for _, f := range w.closers {
		f()
	}
}

func newWatermillAMQP(_ context.Context, url, kind string) (contender, error) {
	cfg := wmamqp.NewDurableQueueConfig(url)
	cfg.Queue.Arguments = amqp.Table{"x-queue-type": kind}
	cfg.Publish.ConfirmDelivery = true
	cfg.Publish.Mandatory = true
	cfg.Publish.ChannelPoolSize = callers
	cfg.Consume.Qos.PrefetchCount = prefetch
	pub, err := wmamqp.NewPublisher(cfg, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	newSub := func() (message.Subscriber, error) { return wmamqp.NewSubscriber(cfg, watermill.NopLogger{}) }
	sub, err := wmamqp.NewSubscriber(cfg, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	conn, err := amqp.Dial(url)
	if err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	topic := "bench.watermill." + kind
	w := &viaWatermill{pub: pub, newSub: newSub, topic: topic}
	w.purgeQueue = func(context.Context) error { _, err := ch.QueuePurge(topic, false); return err }
	w.closers = []func(){func() { _, _ = ch.QueueDelete(topic, false, false, false); conn.Close() }}
	return w, sub.SubscribeInitialize(topic)
}

func newWatermillNATS(ctx context.Context, url string) (contender, error) {
	const topic = "bench_watermill"
	nc, err := natsgo.Connect(url)
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	stream, err := js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: topic, Subjects: []string{topic}, Retention: jetstream.WorkQueuePolicy,
		Storage: jetstream.FileStorage, Duplicates: 20 * time.Second})
	if err != nil {
		return nil, err
	}
	configure := func(string) jetstream.StreamConfig { return jetstream.StreamConfig{Name: topic} }
	pub, err := wmjetstream.NewPublisher(wmjetstream.PublisherConfig{URL: url, Logger: watermill.NopLogger{}, ConfigureStream: configure})
	if err != nil {
		return nil, err
	}
	newSub := func() (message.Subscriber, error) {
		return wmjetstream.NewSubscriber(wmjetstream.SubscriberConfig{
			URL: url, Logger: watermill.NopLogger{}, ConfigureStream: configure, AckAsync: true,
			ConsumeOptions: []jetstream.PullConsumeOpt{jetstream.PullMaxMessages(prefetch)},
			ResourceInitializer: func(ctx context.Context, js jetstream.JetStream, topic string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
				c, err := js.CreateOrUpdateConsumer(ctx, topic, jetstream.ConsumerConfig{
					Durable: "c", AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4096})
				return c, nil, err
			},
		})
	}
	w := &viaWatermill{pub: pub, newSub: newSub, topic: topic}
	w.purgeQueue = func(ctx context.Context) error { return stream.Purge(ctx) }
	w.closers = []func(){func() { _ = js.DeleteStream(context.Background(), topic); nc.Close() }}
	return w, nil
}

func newWatermillRedis(_ context.Context, url string) (contender, error) {
	const topic = "bench:watermill"
	o, err := goredis.ParseURL(url)
	if err != nil {
		return nil, err
	}
	o.PoolSize = callers
	client := goredis.NewClient(o)
	pub, err := wmredis.NewPublisher(wmredis.PublisherConfig{Client: client}, watermill.NopLogger{})
	if err != nil {
		return nil, err
	}
	newSub := func() (message.Subscriber, error) {
		o := *o
		return wmredis.NewSubscriber(wmredis.SubscriberConfig{
			Client: goredis.NewClient(&o), ConsumerGroup: rawGroup, Consumer: "c", BlockTime: 100 * time.Millisecond,
			DisableIndefiniteInitialBlock: true}, watermill.NopLogger{})
	}
	w := &viaWatermill{pub: pub, newSub: newSub, topic: topic}
	w.purgeQueue = func(ctx context.Context) error { return client.Del(ctx, topic).Err() }
	w.closers = []func(){func() { client.Del(context.Background(), topic); client.Close() }}
	return w, nil
}

func newWatermillMemory(context.Context) (contender, error) {
	ps := gochannel.NewGoChannel(gochannel.Config{OutputChannelBuffer: window, Persistent: false}, watermill.NopLogger{})
	newSub := func() (message.Subscriber, error) { return ps, nil }
	return &viaWatermill{pub: ps, newSub: newSub, topic: "bench"}, nil
}
