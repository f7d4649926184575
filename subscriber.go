package polymq

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// SubscriberOptions are the options of a subscriber. nil means the defaults.
type SubscriberOptions struct {
	// Prefetch is how many unsettled messages the subscriber holds at most,
	// those that wait in it included. Default: 32, or Concurrency where that
	// is more.
	Prefetch int
	// Concurrency is how many handlers Run runs at once. Default: 1, which
	// keeps the queue's order.
	Concurrency int
	// OrderBy makes Run handle the deliveries for which it returns the same one
	// at a time, in the order in which they arrived, and others beside them, up
	// to Concurrency. What waits for its turn is held and counts in Prefetch, so
	// let Prefetch be some times Concurrency; what waits when Run ends is given
	// back, which counts as an attempt. It must not keep or settle the delivery,
	// and is called by one goroutine at a time.
	//
	// A delivery that is nacked comes again as the queue gives it, behind others
	// of its key that have arrived meanwhile: where none may overtake it, try
	// again in place with middleware.Retry. Several subscribers of a queue keep
	// no order between them; SingleActiveConsumer leaves one. Default: nil, no
	// order but that of Concurrency 1.
	OrderBy func(*Delivery) string
	// DrainTimeout is how long Run waits for its handlers after its ctx has
	// ended. Default: 30 s.
	DrainTimeout time.Duration
	// Backoff is how long Run waits before the next attempt at a message
	// whose handler failed, by Delivery.Attempt (at least 1). Default:
	// Exponential(time.Second, 5*time.Minute), or at once where the backend
	// does not have FeatureDelayedNack, where any other is refused.
	Backoff func(attempt int) time.Duration
	// WaitForQueue makes a subscriber whose queue is deleted wait until it is
	// declared again, and then go on, in place of ending with ErrNotFound.
	// Default: false, but for Exclusive queues of the same connection, which
	// come back with it.
	WaitForQueue bool
	// Middleware wraps Run's handler, the first being the outermost.
	// Default: none.
	Middleware []Middleware
}

const (
	defaultPrefetch     = 32
	defaultDrainTimeout = 30 * time.Second
)

// Subscriber takes messages from one queue. It is safe for concurrent use;
// each message goes to one caller. It has no goroutine of its own but those
// that its driver documents, and in Run.
//
// While the connection is lost, receiving waits for it; what was held then is
// lost to this subscriber (ErrLost) and comes again.
type Subscriber struct {
	conn    *Conn
	queue   string
	sources sources
	opts    SubscriberOptions
	buffers sync.Pool // of *[]*driver.Delivery, Prefetch long
	ending  ending

	temporary atomic.Bool // the queue ends with it

	hooks    *Hooks       // nil: nobody observes
	inFlight atomic.Int64 // handed out and not settled, counted for hooks
}

// String names the queue.
func (s *Subscriber) String() string { return fmt.Sprintf("polymq.Subscriber(queue %q)", s.queue) }

// GoString is String.
func (s *Subscriber) GoString() string { return s.String() }

// Subscriber begins to consume a queue. A missing one is ErrNotFound. ctx
// bounds the beginning only.
func (c *Conn) Subscriber(ctx context.Context, queue string, opts *SubscriberOptions) (*Subscriber, error) {
	s, err := c.subscriber(ctx, queue, orZero(opts), c.hooks)
	if err != nil {
		return nil, c.wrap("subscriber", queue, err)
	}
	return s, nil
}

func (c *Conn) subscriber(ctx context.Context, queue string, opts SubscriberOptions, hooks *Hooks) (*Subscriber, error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if err := routing.CheckName(queue); err != nil {
		return nil, err
	}
	if err := opts.settle(c.features); err != nil {
		return nil, err
	}
	s := &Subscriber{conn: c, queue: queue, opts: opts, ending: newEnding(), hooks: hooks}
	s.sources.waits = func() bool { return opts.WaitForQueue || c.owns(queue) || c.restores(queue) }
	s.sources.open = func(ctx context.Context) (driver.Subscriber, error) {
		return c.dc.Subscriber(ctx, driver.SubscriberConfig{Queue: queue, Prefetch: opts.Prefetch})
	}
	ds, err := s.sources.open(ctx)
	if err != nil {
		return nil, err
	}
	s.sources.init(ds)
	if err := c.adopt(ctx, s); err != nil {
		return nil, err
	}
	return s, nil
}

// settle puts the defaults in and refuses what makes no sense.
func (o *SubscriberOptions) settle(f Features) error {
	switch {
	case o.Prefetch < 0:
		return invalid("Prefetch: %d: want 1 or more, or 0 for the default", o.Prefetch)
	case o.Concurrency < 0:
		return invalid("Concurrency: %d: want 1 or more, or 0 for the default", o.Concurrency)
	case o.DrainTimeout < 0:
		return invalid("DrainTimeout: %v is negative", o.DrainTimeout)
	case o.Backoff != nil && !f.Has(FeatureDelayedNack):
		return unsupported("Backoff: this backend does not have the feature %q", FeatureDelayedNack)
	}
	if o.Concurrency == 0 {
		o.Concurrency = 1
	}
	if o.Prefetch == 0 {
		o.Prefetch = max(defaultPrefetch, o.Concurrency)
	}
	if o.DrainTimeout == 0 {
		o.DrainTimeout = defaultDrainTimeout
	}
	if o.Backoff == nil {
		o.Backoff = Exponential(time.Second, 5*time.Minute)
		if !f.Has(FeatureDelayedNack) {
			o.Backoff = func(int) time.Duration { return 0 }
		}
	}
	return nil
}

// Receive waits for a delivery. When ctx ends first it returns ctx's error and
// no message is lost; after Close it returns ErrClosed; ErrNotFound means that
// the queue was deleted, unless SubscriberOptions.WaitForQueue.
func (s *Subscriber) Receive(ctx context.Context) (*Delivery, error) {
	return s.receiveOne(ctx, false)
}

func (s *Subscriber) receiveOne(ctx context.Context, handler bool) (*Delivery, error) {
	d := new(Delivery)
	begun := s.now()
	src, _, err := s.receive(ctx, d.held[:])
	if err != nil {
		if s.hooks != nil {
			s.received(ctx, ReceiveEvent{Handler: handler, Begun: begun, Err: err})
		}
		return nil, err
	}
	d.fill(s, src)
	if s.hooks != nil {
		s.receivedOne(ctx, begun, handler, d)
	}
	return d, nil
}

// ReceiveBatch waits for at least one delivery and returns with it what else
// is there, at most max. It returns errors as Receive does.
func (s *Subscriber) ReceiveBatch(ctx context.Context, max int) ([]*Delivery, error) {
	if max < 1 {
		return nil, s.conn.wrap("receive", s.queue, invalid("max: %d: want 1 or more", max))
	}
	held, _ := s.buffers.Get().(*[]*driver.Delivery)
	if held == nil {
		b := make([]*driver.Delivery, s.opts.Prefetch)
		held = &b
	}
	defer s.buffers.Put(held)
	begun := s.now()
	src, n, err := s.receive(ctx, (*held)[:min(max, len(*held))])
	if err != nil {
		if s.hooks != nil {
			s.received(ctx, ReceiveEvent{Batch: true, Begun: begun, Err: err})
		}
		return nil, err
	}
	ds := make([]*Delivery, n)
	for i := range ds {
		ds[i] = &Delivery{held: [1]*driver.Delivery{(*held)[i]}}
		ds[i].fill(s, src)
	}
	clear((*held)[:n])
	if s.hooks != nil {
		s.received(ctx, ReceiveEvent{Batch: true, Begun: begun, Deliveries: ds})
	}
	return ds, nil
}

func (s *Subscriber) receive(ctx context.Context, buf []*driver.Delivery) (src *source, n int, err error) {
	if err = ctx.Err(); s.ending.begun.Load() {
		err = ErrClosed
	}
	if err == nil {
		src, n, err = s.sources.receive(ctx, buf)
	}
	return src, n, s.conn.wrap("receive", s.queue, err)
}

// Queue is the name of the queue.
func (s *Subscriber) Queue() string { return s.queue }

// fill makes of a driver's delivery an application's, without copying the
// message.
func (d *Delivery) fill(s *Subscriber, src *source) {
	held := d.held[0]
	d.Message = (*Message)(&held.Message)
	d.Exchange, d.Queue = held.Exchange, held.Queue
	d.Attempt, d.Redelivered = held.Attempt, held.Redelivered
	d.s, d.src = s, src
}

// Deliveries iterates over the deliveries of Receive. It ends without an error
// when ctx ends; any other error is yielded once, last, with a nil delivery.
// Breaking off leaves the subscriber open and the last delivery unsettled.
func (s *Subscriber) Deliveries(ctx context.Context) iter.Seq2[*Delivery, error] {
	return func(yield func(*Delivery, error) bool) {
		for {
			d, err := s.Receive(ctx)
			if err != nil {
				if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
					yield(nil, err)
				}
				return
			}
			if !yield(d, nil) {
				return
			}
		}
	}
}

// Close sends the settlements that still wait, gives back at once what is
// held, and ends waiting calls with ErrClosed. Messages that were delivered
// and not settled count as an attempt, those that were merely prefetched do
// not. It is idempotent: further calls wait for the first and return its
// result.
func (s *Subscriber) Close(ctx context.Context) error {
	err := s.ending.do(ctx, func() error {
		defer s.conn.forget(s)
		err := s.sources.close(ctx)
		if s.hooks != nil {
			s.released()
		}
		if s.temporary.Load() {
			err = first(err, s.conn.endTemporary(ctx, s.queue))
		}
		return err
	})
	return s.conn.wrap("close", s.queue, err)
}
