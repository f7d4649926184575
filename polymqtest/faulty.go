package polymqtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// scheme is that of the brokers of Run in memory.
const scheme = "polymqtest"

func init() { polymq.Register(scheme, opener{}) }

type opener struct{}

func (opener) Open(ctx context.Context, u *driver.URL, cfg driver.Config) (driver.Conn, error) {
	f := faultsOf(u.Hosts[0])
	if f == nil {
		return nil, errors.New("no test runs on this broker: the URL is Broker.URL's, and ends with its test")
	}
	inner, err := mem.Driver.Open(ctx, u, cfg)
	if err != nil {
		return nil, err
	}
	return &conn{inner, f}, nil
}

// conn is a connection in memory whose messages can meet with faults.
type conn struct {
	driver.Conn
	faults *faults
}

// Check implements driver.Checker.
func (c *conn) Check(t routing.Topology) error {
	if checker, ok := c.Conn.(driver.Checker); ok {
		return checker.Check(t)
	}
	return nil
}

func (c *conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	inner, err := c.Conn.Publisher(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &publisher{inner, cfg.Exchange, c.faults}, nil
}

func (c *conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	inner, err := c.Conn.Subscriber(ctx, cfg)
	if err != nil {
		return nil, err
	}
	return &subscriber{Subscriber: inner, queue: cfg.Queue, faults: c.faults, copies: map[*driver.Delivery]struct{}{}, asleep: map[*context.CancelFunc]struct{}{}}, nil
}

type publisher struct {
	driver.Publisher
	exchange string
	faults   *faults
}

var errDropped = fmt.Errorf("%w: a fault of the test lost it", driver.ErrUnconfirmed)

func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	kept := make([]*driver.Publishing, 0, len(batch))
	for _, pub := range batch {
		m := polymq.Message(*pub.Message)
		m.ID = pub.ID
		fault, ok := p.faults.strike(ctx, Step{Op: Publish, Name: p.exchange, Message: m})
		switch {
		case ok && fault.Drop:
			pub.Resolve(errDropped)
			continue
		case ok && fault.Duplicate:
			kept = append(kept, p.duplicate(pub))
		}
		kept = append(kept, pub)
	}
	if len(kept) > 0 {
		p.Publisher.Publish(ctx, kept, wait)
	}
}

type nobody struct{}

func (nobody) Resolved(*driver.Publishing) {}

// duplicate is another publishing of the same message, which shares nothing
// with it: the message is the caller's again before both have their outcome.
func (p *publisher) duplicate(pub *driver.Publishing) *driver.Publishing {
	m := *pub.Message
	m.Header, m.Body = maps.Clone(m.Header), bytes.Clone(m.Body)
	m.ID = pub.ID
	return &driver.Publishing{Message: &m, ID: pub.ID, Dedup: fmt.Sprintf("%s duplicate %d", pub.ID, p.faults.number()), Owner: nobody{}}
}

type subscriber struct {
	driver.Subscriber
	queue  string
	faults *faults

	mu     sync.Mutex
	next   []*driver.Delivery // to be handed out without a further look
	copies map[*driver.Delivery]struct{}
	asleep map[*context.CancelFunc]struct{} // who waits for the broker, and looks again when next gets something
}

func (s *subscriber) Receive(ctx context.Context, buf []*driver.Delivery) (int, error) {
	for {
		wait, wake := context.WithCancel(ctx)
		if n := s.take(buf, &wake); n > 0 {
			wake()
			return n, nil
		}
		n, err := s.Subscriber.Receive(wait, buf)
		s.awake(&wake)
		if err != nil {
			if ctx.Err() == nil && wait.Err() != nil && errors.Is(err, context.Canceled) {
				continue
			}
			return 0, err
		}
		for _, d := range buf[:n] {
			fault, _ := s.faults.strike(ctx, s.step(Deliver, d))
			switch {
			case fault.Disconnect: // it comes again
			case fault.Drop:
				// That is what the broker makes of a delivery which got lost.
				_ = s.Subscriber.Settle(context.WithoutCancel(ctx), d, driver.Nack, 0)
			default:
				s.put(d, fault.Duplicate)
			}
		}
		if err := ctx.Err(); err != nil {
			return 0, err // what was received is handed out next
		}
	}
}

func (s *subscriber) put(d *driver.Delivery, twice bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if twice { // the copy first: while it is on its way the broker holds the other
		c := *d
		c.Message.Header, c.Message.Body = maps.Clone(c.Message.Header), bytes.Clone(c.Message.Body)
		s.copies[&c] = struct{}{}
		s.next = append(s.next, &c)
	}
	s.next = append(s.next, d)
	for wake := range s.asleep {
		(*wake)()
	}
}

// take is what is next; where there is nothing, wake is called when there is.
func (s *subscriber) take(buf []*driver.Delivery, wake *context.CancelFunc) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := copy(buf, s.next)
	if s.next = s.next[n:]; n == 0 {
		s.asleep[wake] = struct{}{}
	}
	return n
}

func (s *subscriber) awake(wake *context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asleep, wake)
	(*wake)()
}

func (s *subscriber) step(op Op, d *driver.Delivery) Step {
	return Step{Op: op, Name: s.queue, Message: polymq.Message(d.Message), Attempt: d.Attempt}
}

func (s *subscriber) isCopy(d *driver.Delivery) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.copies[d]
	return ok
}

func (s *subscriber) Settle(ctx context.Context, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
	if s.isCopy(d) {
		return ctx.Err()
	}
	fault, ok := s.faults.strike(ctx, s.step(Settle, d))
	switch {
	case !ok:
		return ctx.Err()
	case fault.Drop:
		if err := s.Subscriber.Settle(ctx, d, driver.Nack, 0); err != nil {
			return err
		}
		return fmt.Errorf("%w: a fault of the test lost the settlement", driver.ErrLost)
	}
	return s.Subscriber.Settle(ctx, d, o, delay)
}

func (s *subscriber) Extend(ctx context.Context, d *driver.Delivery) error {
	if s.isCopy(d) {
		return ctx.Err()
	}
	return s.Subscriber.Extend(ctx, d)
}

// Drain implements driver.Drainer, as the subscriber in memory does.
func (s *subscriber) Drain(ctx context.Context) error {
	s.mu.Lock()
	s.next = nil // copies; a delivery that waits here is given back by Close
	s.mu.Unlock()
	return s.Subscriber.(driver.Drainer).Drain(ctx)
}
