package polymq

import (
	"context"
	"iter"
	"time"
)

// SubscriberOptions are the options of a subscriber. nil means the defaults.
type SubscriberOptions struct {
	// Prefetch is how many unsettled messages the subscriber holds at most,
	// waiting ones included. Default: 32.
	Prefetch int
	// Concurrency is how many handlers Run runs at once. Default: 1.
	Concurrency int
	// DrainTimeout is how long Run waits for handlers after its ctx has
	// ended. Default: 30 s.
	DrainTimeout time.Duration
	// Backoff is the delay before the next attempt when a handler failed.
	// Default: Exponential(time.Second, 5*time.Minute).
	Backoff func(attempt int) time.Duration
	// Middleware wraps Run's handler, the first being the outermost.
	// Default: none.
	Middleware []Middleware
}

// Subscriber takes messages from one queue.
type Subscriber struct{}

// Subscriber begins to consume a queue.
func (c *Conn) Subscriber(ctx context.Context, queue string, opts *SubscriberOptions) (*Subscriber, error) {
	panic("unbuilt")
}

// Receive waits for a delivery.
func (s *Subscriber) Receive(ctx context.Context) (*Delivery, error) { panic("unbuilt") }

// ReceiveBatch waits for at least one delivery.
func (s *Subscriber) ReceiveBatch(ctx context.Context, max int) ([]*Delivery, error) {
	panic("unbuilt")
}

// Deliveries iterates over deliveries.
func (s *Subscriber) Deliveries(ctx context.Context) iter.Seq2[*Delivery, error] { panic("unbuilt") }

// Close gives back at once what is held.
func (s *Subscriber) Close(ctx context.Context) error { panic("unbuilt") }
