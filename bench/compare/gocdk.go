package main

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/pitabwire/natspubsub"
	"github.com/pitabwire/natspubsub/connections"
	amqp "github.com/rabbitmq/amqp091-go"
	"gocloud.dev/pubsub"
	"gocloud.dev/pubsub/mempubsub"
	"gocloud.dev/pubsub/rabbitpubsub"
)

// viaCDK is the Go CDK's pubsub. Its Send waits for the confirm, and is meant to
// be called by many at once, which it batches.
type viaCDK struct {
	closers
	topic  *pubsub.Topic
	before func(as func(any) bool) error                                               // each is sent; may be nil
	newSub func(ctx context.Context) (sub *pubsub.Subscription, end func(), err error) // one a round
	empty  func(ctx context.Context) error
}

func (c *viaCDK) publish(ctx context.Context, l load, n int, body []byte) error {
	send := func(n int) error {
		for range n {
			if err := c.topic.Send(ctx, &pubsub.Message{Body: body, BeforeSend: c.before}); err != nil {
				return err
			}
		}
		return nil
	}
	return l.spread(n, send, func(n int) error { return eachOf(l.window, n, send) })
}

func (c *viaCDK) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	sub, end, err := c.newSub(ctx)
	if err != nil {
		return time.Time{}, err
	}
	defer end()
	for more := true; more; {
		m, err := sub.Receive(ctx)
		if err != nil {
			return time.Time{}, err
		}
		more = each(m.Body)
		m.Ack()
	}
	settled := time.Now()
	return settled, sub.Shutdown(ctx)
}

func (c *viaCDK) purge(ctx context.Context) error { return c.empty(ctx) }

// persistent makes a message survive the broker, which the CDK's own driver
// leaves out: what it publishes is confirmed before it is on disk.
func persistent(as func(any) bool) error {
	var p *amqp.Publishing
	if !as(&p) {
		return errors.New("the CDK does not show its message")
	}
	p.DeliveryMode = amqp.Persistent
	return nil
}

// openCDKAMQP is the CDK's own driver. It publishes to an exchange, mandatory.
func openCDKAMQP(_ context.Context, s setup) (_ contender, err error) {
	s.queues = s.count() // always behind an exchange
	c := &viaCDK{before: persistent}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	conn, err := amqp.Dial(s.url)
	if err != nil {
		return nil, err
	}
	c.add(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	queues := s.names("cdk")
	exchange := queues[0] + "_exchange"
	c.add(func() { deleteAMQP(ch, queues, exchange) })
	if _, _, err := declareAMQP(ch, s, queues); err != nil {
		return nil, err
	}
	for _, q := range queues { // it publishes without a key
		if err := ch.QueueBind(q, "#", exchange, false, nil); err != nil {
			return nil, err
		}
	}
	c.empty = func(context.Context) error {
		for _, q := range queues {
			if _, err := ch.QueuePurge(q, false); err != nil {
				return err
			}
		}
		return nil
	}
	c.topic = rabbitpubsub.OpenTopic(conn, exchange, nil)
	c.add(func() { _ = c.topic.Shutdown(context.Background()) })
	// Each has a connection of its own, for one that is shut down can leave a
	// consumer behind that takes the next one's messages.
	c.newSub = func(context.Context) (*pubsub.Subscription, func(), error) {
		conn, err := amqp.Dial(s.url)
		if err != nil {
			return nil, nil, err
		}
		held := prefetch
		return rabbitpubsub.OpenSubscription(conn, queues[0], &rabbitpubsub.SubscriptionOptions{PrefetchCount: &held}), func() { conn.Close() }, nil
	}
	return c, nil
}

// openCDKNATS is the driver of the CDK for JetStream, which is not the CDK's
// own: that one has neither confirms nor acknowledgements. It deduplicates not.
func openCDKNATS(ctx context.Context, s setup) (_ contender, err error) {
	var j jetStreams
	if err := j.open(ctx, s, "cdk"); err != nil {
		return nil, err
	}
	c := &viaCDK{empty: j.purge}
	c.add(j.close)
	conn, err := connections.NewJetstream(j.nc)
	if err != nil {
		c.close()
		return nil, err
	}
	stream := jetstream.StreamConfig{Name: j.subjects[0]}
	c.topic, err = natspubsub.OpenTopic(ctx, connector{conn}, &connections.TopicOptions{Subject: j.subjects[0], StreamConfig: stream})
	if err != nil {
		c.close()
		return nil, err
	}
	c.add(func() { _ = c.topic.Shutdown(context.Background()) })
	c.newSub = func(ctx context.Context) (*pubsub.Subscription, func(), error) {
		sub, err := natspubsub.OpenSubscription(ctx, connector{conn}, &connections.SubscriptionOptions{
			Subject: j.subjects[0], StreamConfig: stream, ReceiveWaitTimeOut: time.Second,
			ConsumerConfig: jetstream.ConsumerConfig{Durable: natsConsumer, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4096}})
		return sub, func() {}, err
	}
	return c, nil
}

// connector lends a connection that somebody else closes.
type connector struct{ conn connections.Connection }

func (c connector) Connection() connections.Connection { return c.conn }
func (c connector) ConfirmOpen() int32                 { return 1 }
func (c connector) ConfirmClose() error                { return nil }

func openCDKMemory(ctx context.Context, _ setup) (contender, error) {
	topic := mempubsub.NewTopic()
	sub := mempubsub.NewSubscription(topic, time.Minute)
	c := &flowing{
		send: func(body []byte) error { return topic.Send(ctx, &pubsub.Message{Body: body}) },
		take: func() error {
			m, err := sub.Receive(ctx)
			if err == nil {
				m.Ack()
			}
			return err
		},
	}
	c.add(func() {
		_ = errors.Join(topic.Shutdown(context.Background()), sub.Shutdown(context.Background()))
	})
	return c, nil
}
