package main

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rawAMQP is amqp091-go as most people write it: deferred confirms, mandatory,
// persistent, one acknowledgement a message. Fast is what can be done about it
// from outside: writes that are gathered, and one acknowledgement for many
// messages.
type rawAMQP struct {
	closers
	consumeConn   *amqp.Connection
	ch            *amqp.Channel
	exchange, key string
	queues        []string
	returns       chan amqp.Return
	multiple      int // acknowledge so many at once
}

func openRawAMQP(ctx context.Context, s setup) (contender, error) {
	return newRawAMQP(s, "raw", amqp.Dial, 1)
}

func openFastAMQP(ctx context.Context, s setup) (contender, error) {
	return newRawAMQP(s, "fast", func(url string) (*amqp.Connection, error) {
		return amqp.DialConfig(url, amqp.Config{Dial: dialGathering})
	}, 64)
}

func newRawAMQP(s setup, who string, dial func(url string) (*amqp.Connection, error), multiple int) (_ contender, err error) {
	r := &rawAMQP{queues: s.names(who), multiple: multiple}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	conn, err := dial(s.url)
	if err != nil {
		return nil, err
	}
	r.add(func() { conn.Close() })
	if r.consumeConn, err = dial(s.url); err != nil {
		return nil, err
	}
	r.add(func() { r.consumeConn.Close() })
	if r.ch, err = conn.Channel(); err != nil {
		return nil, err
	}
	if err = r.ch.Confirm(false); err != nil {
		return nil, err
	}
	r.returns = r.ch.NotifyReturn(make(chan amqp.Return, maxWindow))
	r.add(func() { deleteAMQP(r.ch, r.queues, r.exchange) })
	r.exchange, r.key, err = declareAMQP(r.ch, s, r.queues)
	return r, err
}

// declareAMQP makes the queues, and the exchange where there is to be one.
func declareAMQP(ch *amqp.Channel, s setup, queues []string) (exchange, key string, err error) {
	key = queues[0]
	if s.queues > 0 {
		exchange, key = queues[0]+"_exchange", topicKey
		if err := ch.ExchangeDeclare(exchange, "topic", true, false, false, false, nil); err != nil {
			return "", "", err
		}
	}
	for _, q := range queues {
		if _, err := ch.QueueDeclare(q, true, false, false, false, amqp.Table{"x-queue-type": s.kind}); err != nil {
			return "", "", err
		}
		if exchange != "" {
			if err := ch.QueueBind(q, topicPattern, exchange, false, nil); err != nil {
				return "", "", err
			}
		}
	}
	return exchange, key, nil
}

func deleteAMQP(ch *amqp.Channel, queues []string, exchange string) {
	for _, q := range queues {
		_, _ = ch.QueueDelete(q, false, false, false)
	}
	if exchange != "" {
		_ = ch.ExchangeDelete(exchange, false, false)
	}
}

func (r *rawAMQP) send(ctx context.Context, body []byte) (*amqp.DeferredConfirmation, error) {
	return r.ch.PublishWithDeferredConfirmWithContext(ctx, r.exchange, r.key, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: nextID(), Body: body})
}

func (r *rawAMQP) publish(ctx context.Context, l load, n int, body []byte) error {
	err := l.spread(n, func(n int) error {
		for range n {
			d, err := r.send(ctx, body)
			if err != nil {
				return err
			}
			if ok, err := d.WaitContext(ctx); err != nil || !ok {
				return errors.Join(err, errors.New("not confirmed"))
			}
		}
		return nil
	}, func(n int) error {
		pending := make([]*amqp.DeferredConfirmation, l.window)
		for i := range n + l.window {
			if d := pending[i%l.window]; d != nil && !d.Wait() {
				return errors.New("not confirmed")
			}
			if pending[i%l.window] = nil; i < n {
				d, err := r.send(ctx, body)
				if err != nil {
					return err
				}
				pending[i%l.window] = d
			}
		}
		return nil
	})
	if err == nil && len(r.returns) > 0 {
		return errors.New("returned as unroutable")
	}
	return err
}

func (r *rawAMQP) consume(ctx context.Context, each func([]byte) bool) (time.Time, error) {
	ch, err := r.consumeConn.Channel()
	if err != nil {
		return time.Time{}, err
	}
	defer ch.Close()
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return time.Time{}, err
	}
	deliveries, err := ch.ConsumeWithContext(ctx, r.queues[0], "", false, false, false, false, nil)
	if err != nil {
		return time.Time{}, err
	}
	held := 0
	var last amqp.Delivery
	late := time.NewTicker(time.Millisecond) // what is held is acknowledged by then
	defer late.Stop()
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return time.Time{}, errors.New("the channel ended")
			}
			more := each(d.Body)
			last = d
			if held++; held < r.multiple && more {
				continue
			}
			if err := d.Ack(held > 1); err != nil {
				return time.Time{}, err
			}
			if held = 0; !more {
				return time.Now(), nil
			}
		case <-late.C:
			if held > 0 {
				if err := last.Ack(true); err != nil {
					return time.Time{}, err
				}
				held = 0
			}
		}
	}
}

func (r *rawAMQP) purge(ctx context.Context) error {
	for _, q := range r.queues {
		if _, err := r.ch.QueuePurge(q, false); err != nil {
			return err
		}
	}
	return nil
}
