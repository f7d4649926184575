package polymq

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Handler works on one delivery. What it returns settles the delivery in Run:
//
//	nil                    Ack
//	Permanent(err)         Reject: dead-letter or drop
//	RetryAfter(delay, err) Nack with that delay
//	any other error        Nack with the delay of SubscriberOptions.Backoff
//
// A delivery that the handler has settled itself is left alone. A handler must
// be safe for concurrent use unless SubscriberOptions.Concurrency is 1.
type Handler func(ctx context.Context, d *Delivery) error

// Middleware makes a handler of a handler.
type Middleware func(next Handler) Handler

// PublishFunc publishes messages as Publisher.Publish does.
type PublishFunc func(ctx context.Context, msgs ...*Message) error

// PublishMiddleware makes a PublishFunc of a PublishFunc. It must not change
// the messages it is given: it passes copies on.
type PublishMiddleware func(next PublishFunc) PublishFunc

// Chain wraps h in middleware, the first being the outermost.
func Chain(h Handler, mw ...Middleware) Handler {
	for i := len(mw) - 1; i >= 0; i-- {
		h = mw[i](h)
	}
	return h
}

// Permanent marks err as one that no further attempt can cure: Run rejects
// the delivery. Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return &permanent{err}
}

// IsPermanent reports whether err is, or wraps, an error of Permanent.
func IsPermanent(err error) bool {
	_, ok := errors.AsType[*permanent](err)
	return ok
}

type permanent struct{ err error }

func (e *permanent) Error() string { return e.err.Error() }
func (e *permanent) Unwrap() error { return e.err }

// RetryAfter makes Run nack the delivery with this delay in place of the
// backoff's. err says why and may be nil: the delivery is nacked all the same.
// A negative delay counts as 0.
func RetryAfter(delay time.Duration, err error) error {
	return &retryAfter{max(delay, 0), err}
}

// RetryDelay is the delay if err is, or wraps, an error of RetryAfter.
func RetryDelay(err error) (delay time.Duration, ok bool) {
	e, ok := errors.AsType[*retryAfter](err)
	if !ok {
		return 0, false
	}
	return e.delay, true
}

type retryAfter struct {
	delay time.Duration
	err   error
}

func (e *retryAfter) Error() string {
	if e.err == nil {
		return fmt.Sprintf("again in %v", e.delay)
	}
	return e.err.Error()
}

func (e *retryAfter) Unwrap() error { return e.err }
