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
	amqp "github.com/rabbitmq/amqp091-go"
	goredis "github.com/redis/go-redis/v9"

	"github.com/nats-io/nats.go/jetstream"
)

// viaWatermill is Watermill: with its defaults, but durable and confirmed; or
// tuned, with the settings that make it fastest: pooled channels, a prefetch,
// acknowledgements that are not waited for. Each Subscribe has one message in
// flight, whatever the prefetch, and Publish sends one message after another.
type viaWatermill struct {
	closers
	pub    message.Publisher
	newSub func() (message.Subscriber, error) // one a round, since ending a subscription takes its time
	topics []string                           // of a message, each a queue, or an exchange that leads to all
	queue  string
	empty  func(ctx context.Context) error
}

func newMessage(body []byte) *message.Message {
	return message.NewMessage(nextID(), body)
}

func (w *viaWatermill) publish(ctx context.Context, l load, n int, body []byte) error {
	return l.spread(n, func(n int) error {
		for range n {
			for _, topic := range w.topics {
				if err := w.pub.Publish(topic, newMessage(body)); err != nil {
					return err
				}
			}
		}
		return nil
	}, func(n int) error {
		batch := make([]*message.Message, 0, l.window)
		for n > 0 {
			batch = batch[:0]
			for range min(n, l.window) {
				batch = append(batch, newMessage(body))
			}
			for _, topic := range w.topics {
				if err := w.pub.Publish(topic, batch...); err != nil {
					return err
				}
			}
			n -= len(batch)
		}
		return nil
	})
}

func (w *viaWatermill) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	sub, err := w.newSub()
	if err != nil {
		return time.Time{}, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	deliveries, err := sub.Subscribe(ctx, w.queue)
	if err != nil {
		return time.Time{}, err
	}
	for more := true; more; {
		select {
		case m, ok := <-deliveries:
			if !ok {
				return time.Time{}, errors.New("the subscription ended")
			}
			more = each(m.Payload)
			m.Ack()
		case <-ctx.Done():
			return time.Time{}, ctx.Err()
		}
	}
	settled := time.Now()
	return settled, sub.Close()
}

func (w *viaWatermill) purge(ctx context.Context) error { return w.empty(ctx) }

func openWatermillAMQP(tuned bool) opener {
	return func(_ context.Context, s setup) (_ contender, err error) {
		names := s.names(name("watermill", tuned))
		w := &viaWatermill{queue: names[0], topics: names[:1]}
		defer func() {
			if err != nil {
				w.close()
			}
		}()
		conn, err := amqp.Dial(s.url)
		if err != nil {
			return nil, err
		}
		w.add(func() { conn.Close() })
		ch, err := conn.Channel()
		if err != nil {
			return nil, err
		}
		exchange, _, err := declareAMQP(ch, s, names)
		if err != nil {
			return nil, err
		}
		w.add(func() { deleteAMQP(ch, names, exchange) })
		w.empty = func(context.Context) error {
			for _, q := range names {
				if _, err := ch.QueuePurge(q, false); err != nil {
					return err
				}
			}
			return nil
		}
		cfg := wmamqp.NewDurableQueueConfig(s.url)
		cfg.Queue.Arguments = amqp.Table{"x-queue-type": s.kind}
		cfg.Publish.ConfirmDelivery = true
		cfg.Publish.Mandatory = true
		if tuned {
			cfg.Publish.ChannelPoolSize = callers
			cfg.Consume.Qos.PrefetchCount = prefetch
		}
		pubCfg := cfg
		if exchange != "" {
			w.topics = []string{exchange}
			pubCfg.TopologyBuilder = declared{}
			pubCfg.Exchange = wmamqp.ExchangeConfig{GenerateName: func(topic string) string { return topic }, Type: "topic", Durable: true}
			pubCfg.Publish.GenerateRoutingKey = func(string) string { return topicKey }
		}
		pub, err := wmamqp.NewPublisher(pubCfg, watermill.NopLogger{})
		if err != nil {
			return nil, err
		}
		w.pub = pub
		w.add(func() { _ = pub.Close() })
		w.newSub = func() (message.Subscriber, error) { return wmamqp.NewSubscriber(cfg, watermill.NopLogger{}) }
		return w, nil
	}
}

// declared builds nothing: all is there.
type declared struct{}

func (declared) BuildTopology(*amqp.Channel, wmamqp.BuildTopologyParams, wmamqp.Config, watermill.LoggerAdapter) error {
	return nil
}

func (declared) ExchangeDeclare(*amqp.Channel, string, wmamqp.Config) error { return nil }

func openWatermillNATS(tuned bool) opener {
	return func(ctx context.Context, s setup) (_ contender, err error) {
		var j jetStreams
		if err := j.open(ctx, s, name("watermill", tuned)); err != nil {
			return nil, err
		}
		w := &viaWatermill{queue: j.subjects[0], topics: j.subjects, empty: j.purge}
		w.add(j.close)
		configure := func(topic string) jetstream.StreamConfig { return jetstream.StreamConfig{Name: topic} }
		w.pub, err = wmjetstream.NewPublisher(wmjetstream.PublisherConfig{
			URL: s.url, Logger: watermill.NopLogger{}, ConfigureStream: configure})
		if err != nil {
			w.close()
			return nil, err
		}
		w.add(func() { _ = w.pub.Close() })
		w.newSub = func() (message.Subscriber, error) {
			cfg := wmjetstream.SubscriberConfig{
				URL: s.url, Logger: watermill.NopLogger{}, ConfigureStream: configure,
				ResourceInitializer: func(ctx context.Context, js jetstream.JetStream, topic string) (jetstream.Consumer, func(context.Context, watermill.LoggerAdapter), error) {
					c, err := js.Consumer(ctx, topic, natsConsumer)
					return c, nil, err
				},
			}
			if tuned {
				cfg.AckAsync = true
				cfg.ConsumeOptions = []jetstream.PullConsumeOpt{jetstream.PullMaxMessages(prefetch)}
			}
			return wmjetstream.NewSubscriber(cfg)
		}
		return w, nil
	}
}

// openWatermillRedis is Watermill for Redis. It deletes nothing, and there is
// nothing to tune.
func openWatermillRedis(ctx context.Context, s setup) (contender, error) {
	var r redisStreams
	if err := r.open(ctx, s, "watermill"); err != nil {
		return nil, err
	}
	w := &viaWatermill{queue: r.streams[0], topics: r.streams, empty: r.purge}
	w.add(r.close)
	pub, err := wmredis.NewPublisher(wmredis.PublisherConfig{Client: r.c}, watermill.NopLogger{})
	if err != nil {
		w.close()
		return nil, err
	}
	w.pub = pub
	w.newSub = func() (message.Subscriber, error) {
		o := *r.c.Options()
		o.PoolSize = 4
		return wmredis.NewSubscriber(wmredis.SubscriberConfig{
			Client: goredis.NewClient(&o), ConsumerGroup: redisGroup, Consumer: "c", BlockTime: 100 * time.Millisecond,
			DisableIndefiniteInitialBlock: true}, watermill.NopLogger{})
	}
	return w, nil
}

func name(who string, tuned bool) string {
	if tuned {
		return who + "-tuned"
	}
	return who
}
