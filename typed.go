package polymq

import "context"

// Typed makes a Handler of a function that takes the decoded message, which
// Decode reads with the codecs, chosen by content type. Default: JSON alone.
//
// A message that cannot be decoded is a Permanent error, since another attempt
// would not help: Run rejects it, and it goes to the queue's dead-letter exchange
// or is dropped where there is none. RabbitMQ's reject has no place for a reason;
// middleware.DeadLetter writes it into the dead letter on every backend.
func Typed[T any](fn func(ctx context.Context, d *Delivery, v T) error, codecs ...Codec) Handler {
	return func(ctx context.Context, d *Delivery) error {
		v, err := Decode[T](d.Message, codecs...)
		if err != nil {
			return Permanent(err)
		}
		return fn(ctx, d, v)
	}
}

// TypedPublisher publishes values of one type. It is safe for concurrent use.
type TypedPublisher[T any] struct {
	p     *Publisher
	codec Codec
}

// NewTypedPublisher makes a publisher of values out of one of messages. It is a
// plain pair of the two, and ends with p. A nil codec is JSON.
func NewTypedPublisher[T any](p *Publisher, codec Codec) *TypedPublisher[T] {
	return &TypedPublisher[T]{p, codec}
}

// Publish encodes v and publishes it with Publisher.Publish, whose errors are
// its own. m has the routing key and what else the message is to have; its body
// and content type are the codec's. A value that cannot be encoded is
// ErrInvalid. For several in one call there is Encode.
func (p *TypedPublisher[T]) Publish(ctx context.Context, m Message, v T) error {
	if err := encode(&m, v, p.codec); err != nil {
		return p.p.conn.wrap("publish", p.p.exchange, err)
	}
	return p.p.Publish(ctx, &m)
}
