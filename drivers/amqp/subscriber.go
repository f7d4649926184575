package amqp

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// ackDelay is how long an acknowledgement may wait for others.
const ackDelay = 2 * time.Millisecond

// subscriber implements driver.Subscriber on one channel with one goroutine,
// which takes deliveries in, flushes acknowledgements that nothing else has
// flushed, and consumes again after the connection was lost.
type subscriber struct {
	c        *Conn
	queue    string
	prefetch int

	ready chan struct{} // cap 1: something to take, or the end
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when the goroutine has ended
	timer *time.Timer

	mu     sync.Mutex
	life   *life       // nil while there is no channel
	local  []*delivery // taken in, not yet handed out
	armed  bool
	closed bool
	err    error // why Receive ends once local is empty
}

// life is one channel of a subscriber; delivery tags belong to it.
type life struct {
	ch         *amqp091.Channel
	deliveries <-chan amqp091.Delivery
	canceled   chan string
	acks       *acks
	held       map[uint64]*delivery // not settled, by tag
}

// delivery is what Delivery.Tag leads back to.
type delivery struct {
	driver.Delivery
	life *life
	tag  uint64
	// death is the x-death that a copy must carry on.
	death  any
	handed bool
}

// Subscriber implements driver.Conn.
func (c *Conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	s := &subscriber{
		c:        c,
		queue:    cfg.Queue,
		prefetch: max(cfg.Prefetch, 1),
		ready:    make(chan struct{}, 1),
		stop:     make(chan struct{}),
		done:     make(chan struct{}),
		timer:    time.NewTimer(time.Hour),
	}
	s.timer.Stop()
	var first *life
	err := c.do(ctx, func(ch *channel) error {
		var err error
		first, err = s.consume(ch.conn)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.begin(); err != nil {
		first.ch.Close()
		return nil, err
	}
	c.mu.Lock()
	c.subscribers[s] = struct{}{}
	c.mu.Unlock()
	s.life = first
	go s.run(first)
	return s, nil
}

// consume opens a channel and starts to consume on it.
func (s *subscriber) consume(conn *amqp091.Connection) (*life, error) {
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	l := &life{ch: ch, acks: newAcks(ch), held: make(map[uint64]*delivery, min(s.prefetch, 1024))}
	l.canceled = ch.NotifyCancel(make(chan string, 1))
	if err = ch.Qos(s.prefetch, 0, false); err == nil {
		l.deliveries, err = ch.Consume(s.queue, consumerTag, false, false, false, false, nil)
	}
	if err != nil {
		ch.Close()
		return nil, err
	}
	return l, nil
}

// consumerTag can be the same for all: each has its channel to itself.
const consumerTag = "polymq"

// run is the subscriber's goroutine.
func (s *subscriber) run(l *life) {
	defer s.c.tasks.Done()
	defer close(s.done)
	for l != nil {
		if !s.serve(l) {
			s.leave(l)
			return
		}
		l = s.again()
	}
}

// serve takes deliveries in until the channel's end; false when the subscriber
// is to close.
func (s *subscriber) serve(l *life) bool {
	for {
		select {
		case d, ok := <-l.deliveries:
			if !ok {
				return true
			}
			s.put(l, &d)
		case <-s.timer.C:
			s.mu.Lock()
			s.armed = false
			l.acks.flush()
			s.mu.Unlock()
		case <-s.stop:
			return false
		}
	}
}

func (s *subscriber) put(l *life, d *amqp091.Delivery) {
	in := s.deliver(l, d)
	s.mu.Lock()
	for l.acks.next() <= in.tag {
		l.acks.add()
	}
	l.held[in.tag] = in
	s.local = append(s.local, in)
	s.mu.Unlock()
	signal(s.ready)
}

// again brings about the next life: nil when there is none.
func (s *subscriber) again() *life {
	s.mu.Lock()
	last := s.life
	s.life = nil
	s.local = nil // the broker delivers them again
	s.mu.Unlock()
	gone := false
	select {
	case _, gone = <-last.canceled:
	default:
	}
	ctx, cancel := context.WithCancel(s.c.ctx)
	defer cancel()
	stopped := make(chan struct{})
	defer close(stopped)
	go func() {
		select {
		case <-s.stop:
			cancel()
		case <-stopped:
		}
	}()
	if gone {
		last.ch.Close()
	}
	for {
		conn, err := s.c.consume.get(ctx)
		if err != nil {
			return nil
		}
		l, err := s.consume(conn)
		if err == nil {
			s.mu.Lock()
			s.life = l
			s.mu.Unlock()
			return l
		}
		if !lost(err) {
			s.fail(wrap(err))
			return nil
		}
		select {
		case <-time.After(minPause):
		case <-ctx.Done():
			return nil
		}
	}
}

// fail ends the subscriber: Receive returns err when nothing is left to take.
func (s *subscriber) fail(err error) {
	s.mu.Lock()
	if s.err == nil {
		s.err = err
	}
	s.mu.Unlock()
	signal(s.ready)
}

// leave gives back what is held and ends the channel.
func (s *subscriber) leave(l *life) {
	l.ch.Cancel(consumerTag, false)
	for d := range l.deliveries {
		s.put(l, &d)
	}
	s.mu.Lock()
	s.local = nil
	s.life = nil
	l.acks.flush()
	for tag := l.acks.base; tag < l.acks.next(); tag++ {
		d := l.held[tag]
		switch {
		case d == nil:
		case d.handed:
			l.ch.Reject(tag, true)
		default:
			// Not counted as an attempt, where the broker can tell.
			l.ch.Nack(tag, false, true)
		}
	}
	clear(l.held)
	s.mu.Unlock()
	l.ch.Close() // answered after what was sent before
}

// Receive implements driver.Subscriber.
func (s *subscriber) Receive(ctx context.Context, buf []*driver.Delivery) (int, error) {
	for {
		s.mu.Lock()
		if s.closed {
			s.mu.Unlock()
			signal(s.ready) // for the next one who waits
			return 0, driver.ErrClosed
		}
		if n := min(len(buf), len(s.local)); n > 0 {
			for i, d := range s.local[:n] {
				d.handed = true
				buf[i] = &d.Delivery
				s.local[i] = nil
			}
			s.local = s.local[n:]
			more := len(s.local) > 0
			s.mu.Unlock()
			if more {
				signal(s.ready)
			}
			return n, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			signal(s.ready)
			return 0, err
		}
		select {
		case <-s.ready:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// Settle implements driver.Subscriber.
func (s *subscriber) Settle(ctx context.Context, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
	in := d.Tag.(*delivery)
	if o == driver.Nack && delay > 0 {
		return s.settleLater(ctx, in, delay)
	}
	return s.settle(in, o)
}

func (s *subscriber) settle(in *delivery, o driver.Outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.life
	if l == nil || l != in.life || l.held[in.tag] != in || l.ch.IsClosed() {
		return driver.ErrLost
	}
	delete(l.held, in.tag)
	var err error
	switch o {
	case driver.Ack:
		l.acks.ack(in.tag)
		if 2*l.acks.pending >= s.prefetch || l.acks.held == 0 {
			err = l.acks.flush()
		} else if !s.armed {
			s.armed = true
			s.timer.Reset(ackDelay)
		}
	case driver.Nack:
		err = l.ch.Reject(in.tag, true)
		l.acks.gone(in.tag)
	case driver.Reject:
		err = l.ch.Reject(in.tag, false)
		l.acks.gone(in.tag)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", driver.ErrLost, err)
	}
	return nil
}

// Extend implements driver.Subscriber: the broker holds for as long as the
// channel lives.
func (s *subscriber) Extend(ctx context.Context, d *driver.Delivery) error {
	in := d.Tag.(*delivery)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.life == nil || s.life != in.life || s.life.held[in.tag] != in || s.life.ch.IsClosed() {
		return driver.ErrLost
	}
	return nil
}

// Close implements driver.Subscriber.
func (s *subscriber) Close(ctx context.Context) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if !again {
		close(s.stop)
		signal(s.ready)
		s.c.mu.Lock()
		delete(s.c.subscribers, s)
		s.c.mu.Unlock()
	}
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliver is d as the application sees it.
func (s *subscriber) deliver(l *life, d *amqp091.Delivery) *delivery {
	in := &delivery{life: l, tag: d.DeliveryTag}
	in.Tag = in
	in.Queue = s.queue
	in.Exchange = d.Exchange
	in.Redelivered = d.Redelivered
	count, counted := d.Headers[headerDelivered]
	message(&in.Message, d)
	if counted {
		delete(in.Message.Header, headerDelivered)
		delete(in.Message.Header, headerAcquired)
		n, _ := valueOf(count).(int64)
		in.Attempt = int(n) + 1
	} else if !d.Redelivered {
		in.Attempt = 1
	}
	in.restore()
	if len(in.Message.Header) == 0 {
		in.Message.Header = nil
	}
	return in
}

