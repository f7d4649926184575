package oracle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// library is a backend through polymq's public API.
type library struct {
	url   string
	peek  *raw // where the backend is RabbitMQ: another way to look at queues
	class bool // make every queue a classic one
	conns [connections]*libraryConn
}

type libraryConn struct {
	*polymq.Conn
	pubs map[publisherKey]*polymq.Publisher
}

type publisherKey struct {
	exchange string
	drop     bool
}

func openLibrary(ctx context.Context, url string, peek *raw) (*library, error) {
	l := &library{url: url, peek: peek}
	for i := range l.conns {
		if err := l.open(ctx, i); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func (l *library) open(ctx context.Context, on int) error {
	c, err := polymq.Open(ctx, l.url, nil)
	l.conns[on] = &libraryConn{c, map[publisherKey]*polymq.Publisher{}}
	return err
}

func (l *library) declare(ctx context.Context, on int, t routing.Topology) error {
	if l.class {
		t.Queues = append([]routing.Queue(nil), t.Queues...)
		for i := range t.Queues {
			t.Queues[i].Type = "classic"
		}
	}
	return l.conns[on].Declare(ctx, t)
}

func (l *library) bind(ctx context.Context, on int, b routing.Binding) error {
	return l.conns[on].Bind(ctx, b)
}

func (l *library) unbind(ctx context.Context, on int, b routing.Binding) error {
	return l.conns[on].Unbind(ctx, b)
}

func (l *library) deleteQueue(ctx context.Context, on int, queue string, o polymq.DeleteOptions) error {
	return l.conns[on].DeleteQueue(ctx, queue, &o)
}

func (l *library) deleteExchange(ctx context.Context, on int, exchange string, o polymq.DeleteOptions) error {
	return l.conns[on].DeleteExchange(ctx, exchange, &o)
}

func (l *library) purge(ctx context.Context, on int, queue string) (int, error) {
	return l.conns[on].Purge(ctx, queue)
}

func (l *library) inspect(ctx context.Context, on int, queue string) (polymq.QueueInfo, error) {
	return l.conns[on].Inspect(ctx, queue)
}

func (l *library) count(ctx context.Context, on int, q routing.Queue) (ready, consumers int, err error) {
	if l.peek != nil && !q.Exclusive {
		// Inspect asks the management API too, which would take most of the run.
		return l.peek.count(ctx, 0, q)
	}
	info, err := l.inspect(ctx, on, q.Name)
	return info.Ready, info.Consumers, err
}

func (l *library) publish(ctx context.Context, on int, exchange string, drop bool, ms []polymq.Message) []error {
	errs := make([]error, len(ms))
	c, key := l.conns[on], publisherKey{exchange, drop}
	pub := c.pubs[key]
	if pub == nil {
		var err error
		if pub, err = c.Publisher(ctx, exchange, &polymq.PublisherOptions{DropUnroutable: drop}); err != nil {
			for i := range errs {
				errs[i] = err
			}
			return errs
		}
		c.pubs[key] = pub
	}
	refs := make([]*polymq.Message, len(ms))
	for i := range ms {
		refs[i] = &ms[i]
	}
	err := pub.Publish(ctx, refs...)
	failed, ok := errors.AsType[*polymq.PublishError](err)
	for i := range errs {
		if err != nil && !ok {
			errs[i] = err
		}
	}
	if ok {
		for _, f := range failed.Failures {
			errs[f.Index] = f.Err
		}
	}
	return errs
}

func (l *library) subscribe(ctx context.Context, on int, queue string, prefetch int) (subscription, error) {
	s, err := l.conns[on].Subscriber(ctx, queue, &polymq.SubscriberOptions{Prefetch: prefetch})
	return librarySubscription{s}, err
}

func (l *library) disconnect(ctx context.Context, on int) error {
	if err := l.conns[on].Close(ctx); err != nil {
		return err
	}
	return l.open(ctx, on)
}

// forget closes the publishers that a script has left behind.
func (l *library) forget(ctx context.Context) error {
	var errs []error
	for _, c := range l.conns {
		for key, p := range c.pubs {
			errs = append(errs, p.Close(ctx))
			delete(c.pubs, key)
		}
	}
	return errors.Join(errs...)
}

func (l *library) close(ctx context.Context) error {
	var errs []error
	for _, c := range l.conns {
		errs = append(errs, c.Close(ctx))
	}
	if l.peek != nil {
		errs = append(errs, l.peek.close(ctx))
	}
	return errors.Join(errs...)
}

type librarySubscription struct{ *polymq.Subscriber }

func (s librarySubscription) receive(ctx context.Context) (*received, error) {
	d, err := s.Receive(ctx)
	if err != nil {
		return nil, err
	}
	return &received{Delivered{*d.Message, d.Exchange, d.Queue, d.Attempt, d.Redelivered}, d}, nil
}

func (s librarySubscription) settle(ctx context.Context, r *received, outcome string, delay time.Duration) error {
	d := r.tag.(*polymq.Delivery)
	switch outcome {
	case Ack:
		return d.Ack(ctx)
	case Nack:
		return d.Nack(ctx, delay)
	case Reject:
		return d.Reject(ctx)
	}
	return fmt.Errorf("no such outcome: %q", outcome)
}

func (s librarySubscription) pending() int { return -1 }

func (s librarySubscription) close(ctx context.Context) error { return s.Close(ctx) }
