package oracle

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq"
)

// rawSubscription is a consumer with a channel of its own.
type rawSubscription struct {
	r     *raw
	on    int
	queue string
	ch    *amqp.Channel
	more  chan struct{} // cap 1

	mu    sync.Mutex
	came  []amqp.Delivery // not yet received
	held  int             // came and not settled
	ended bool            // the broker cancelled it, or the channel is closed
}

func (r *raw) subscribe(ctx context.Context, on int, queue string, prefetch int) (subscription, error) {
	ch, err := r.conns[on].conn.Channel()
	if err != nil {
		return nil, err
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return nil, err
	}
	deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
	if err != nil {
		return nil, meaning(err)
	}
	s := &rawSubscription{r: r, on: on, queue: queue, ch: ch, more: make(chan struct{}, 1)}
	r.subs[s] = true
	go func() {
		for d := range deliveries {
			s.mu.Lock()
			s.came = append(s.came, d)
			s.held++
			s.mu.Unlock()
			s.signal()
		}
		s.mu.Lock()
		s.ended = true
		s.mu.Unlock()
		s.signal()
	}()
	return s, nil
}

func (s *rawSubscription) signal() {
	select {
	case s.more <- struct{}{}:
	default:
	}
}

func (s *rawSubscription) unsettled() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *rawSubscription) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.came)
}

func (s *rawSubscription) receive(ctx context.Context) (*received, error) {
	for {
		s.mu.Lock()
		if len(s.came) > 0 {
			d := s.came[0]
			s.came = s.came[1:]
			s.mu.Unlock()
			return &received{delivered(&d, s.queue), d.DeliveryTag}, nil
		}
		ended := s.ended
		s.mu.Unlock()
		if ended {
			return nil, fmt.Errorf("%w: the broker cancelled the consumer", polymq.ErrNotFound)
		}
		select {
		case <-s.more:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (s *rawSubscription) settle(_ context.Context, r *received, outcome string, delay time.Duration) error {
	if delay > 0 {
		return fmt.Errorf("RabbitMQ has no nack with a delay")
	}
	s.mu.Lock()
	s.held--
	s.mu.Unlock()
	tag := r.tag.(uint64)
	switch outcome {
	case Ack:
		return meaning(s.ch.Ack(tag, false))
	case Nack:
		return meaning(s.ch.Reject(tag, true))
	}
	return meaning(s.ch.Reject(tag, false))
}

func (s *rawSubscription) close(context.Context) error {
	delete(s.r.subs, s)
	if s.ch.IsClosed() {
		return nil
	}
	return s.ch.Close()
}

// delivered is a delivery as polymq's documentation says that it looks.
func delivered(d *amqp.Delivery, queue string) Delivered {
	m := polymq.Message{
		ID: d.MessageId, Key: d.RoutingKey, Body: d.Body, ContentType: d.ContentType, ContentEncoding: d.ContentEncoding,
		CorrelationID: d.CorrelationId, ReplyTo: d.ReplyTo, Type: d.Type, AppID: d.AppId, UserID: d.UserId,
		Priority: d.Priority, Transient: d.DeliveryMode != amqp.Persistent, Header: polymq.Header{},
	}
	if !d.Timestamp.IsZero() {
		m.Time = d.Timestamp.UTC()
	}
	if d.Expiration != "" {
		ms, err := strconv.Atoi(d.Expiration)
		if err != nil {
			ms = -1
		}
		m.TTL = time.Duration(ms) * time.Millisecond
	}
	for name, v := range d.Headers {
		switch name {
		case "x-delivery-count", "x-acquired-count": // the broker's own
		default:
			m.Header[name] = plain(v)
		}
	}
	return Delivered{Message: m, Exchange: d.Exchange, Queue: queue, Redelivered: d.Redelivered}
}

// plain is a header's value in the types that polymq delivers.
func plain(v any) any {
	switch v := v.(type) {
	case int8:
		return int64(v)
	case int16:
		return int64(v)
	case int32:
		return int64(v)
	case float32:
		return float64(v)
	case time.Time:
		return v.UTC()
	case amqp.Table:
		t := map[string]any{}
		for k, e := range v {
			t[k] = plain(e)
		}
		return t
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = plain(e)
		}
		return l
	}
	return v
}
