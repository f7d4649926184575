package main

import (
	"context"
	"errors"

	amqp "github.com/rabbitmq/amqp091-go"
)

// rawAMQP is amqp091-go as most people write it: deferred confirms, mandatory,
// persistent, one acknowledgement a message.
type rawAMQP struct {
	conn, consumeConn *amqp.Connection
	ch                *amqp.Channel
	queue             string
	returns           chan amqp.Return
}

func newRawAMQP(ctx context.Context, url, kind string) (contender, error) {
	r := &rawAMQP{queue: "bench.raw." + kind}
	var err error
	if r.conn, err = amqp.Dial(url); err != nil {
		return nil, err
	}
	if r.consumeConn, err = amqp.Dial(url); err != nil {
		return nil, err
	}
	if r.ch, err = r.conn.Channel(); err != nil {
		return nil, err
	}
	if err = r.ch.Confirm(false); err != nil {
		return nil, err
	}
	r.returns = r.ch.NotifyReturn(make(chan amqp.Return, window))
	_, err = r.ch.QueueDeclare(r.queue, true, false, false, false, amqp.Table{"x-queue-type": kind})
	return r, err
}

func (r *rawAMQP) send(ctx context.Context, body []byte) (*amqp.DeferredConfirmation, error) {
	return r.ch.PublishWithDeferredConfirmWithContext(ctx, "", r.queue, true, false,
		amqp.Publishing{DeliveryMode: amqp.Persistent, MessageId: nextID(), Body: body})
}

func (r *rawAMQP) publish(ctx context.Context, op operation, n int, body []byte) error {
	switch op {
	case publishOne:
		for range n {
			d, err := r.send(ctx, body)
			if err != nil {
				return err
			}
			if ok, err := d.WaitContext(ctx); err != nil || !ok {
				return errors.Join(err, errors.New("not confirmed"))
			}
		}
	case publishPipelined:
		pending := make([]*amqp.DeferredConfirmation, 0, n)
		for i := range n {
			d, err := r.send(ctx, body)
			if err != nil {
				return err
			}
			pending = append(pending, d)
			if i >= window {
				if !pending[i-window].Wait() {
					return errors.New("not confirmed")
				}
			}
		}
		for _, d := range pending[max(0, n-window):] {
			if !d.Wait() {
				return errors.New("not confirmed")
			}
		}
	case publishCallers:
		return eachOf(callers, n, func(n int) error { return r.publish(ctx, publishOne, n, body) })
	}
	if len(r.returns) > 0 {
		return errors.New("returned as unroutable")
	}
	return nil
}

func (r *rawAMQP) consume(ctx context.Context, n int) error {
	ch, err := r.consumeConn.Channel()
	if err != nil {
		return err
	}
	defer ch.Close()
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return err
	}
	deliveries, err := ch.ConsumeWithContext(ctx, r.queue, "", false, false, false, false, nil)
	if err != nil {
		return err
	}
	for range n {
		d, ok := <-deliveries
		if !ok {
			return errors.New("the channel ended")
		}
		if err := d.Ack(false); err != nil {
			return err
		}
	}
	return nil
}

func (r *rawAMQP) purge(ctx context.Context) error {
	_, err := r.ch.QueuePurge(r.queue, false)
	return err
}

func (r *rawAMQP) close() {
	_, _ = r.ch.QueueDelete(r.queue, false, false, false)
	r.conn.Close()
	r.consumeConn.Close()
}
