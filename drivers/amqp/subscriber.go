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
	kind     queueKind
	prefetch int

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	ready   chan struct{} // cap 1: something to take, or the end
	drain   chan struct{} // closed by Drain and Close
	drained chan struct{} // closed when nothing is taken in any more
	done    chan struct{} // closed when the goroutine has ended
	timer   *time.Timer

	mu     sync.Mutex
	life   *life       // nil while there is no channel
	local  []*delivery // taken in, not yet handed out
	armed  bool        // the timer is set
	closed bool        // by Drain or Close
	err    error       // why Receive ends once local is empty
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
	// handed says that Receive returned it; guarded by the subscriber's mutex.
	handed bool
}

// Subscriber implements driver.Conn.
func (c *Conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	kind, err := c.kindOf(ctx, cfg.Queue)
	if err != nil {
		return nil, err
	}
	s := &subscriber{
		c:        c,
		queue:    cfg.Queue,
		kind:     kind,
		prefetch: max(cfg.Prefetch, 1),
		ready:    make(chan struct{}, 1),
		drain:    make(chan struct{}),
		drained:  make(chan struct{}),
		done:     make(chan struct{}),
		timer:    time.NewTimer(time.Hour),
	}
	s.timer.Stop()
	err = c.do(ctx, func(ch *channel) error {
		l, err := s.consume(ch.conn)
		if err == nil && ctx.Err() != nil {
			l.ch.Close() // nobody waits for it any more
			return ctx.Err()
		}
		s.life = l
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.begin(); err != nil {
		s.life.ch.Close()
		return nil, err
	}
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	c.mu.Lock()
	c.subscribers[s] = struct{}{}
	c.mu.Unlock()
	go s.run(s.life)
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
	for l != nil && s.serve(l) {
		l = s.again()
	}
}

// serve takes deliveries in and sends acknowledgements until the channel's
// end; false when the subscriber has closed.
func (s *subscriber) serve(l *life) bool {
	deliveries, drain := l.deliveries, s.drain
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return true
			}
			s.put(l, &d)
		case <-s.timer.C:
			s.mu.Lock()
			s.armed = false
			l.acks.flush()
			s.mu.Unlock()
		case <-drain:
			s.giveBack(l)
			close(s.drained)
			deliveries, drain = nil, nil
		case <-s.ctx.Done():
			if drain != nil {
				s.giveBack(l)
			}
			s.leave(l)
			return false
		}
	}
}

func (s *subscriber) put(l *life, d *amqp091.Delivery) {
	in := s.deliver(l, d)
	if s.kind.limit > 0 && in.Attempt > s.kind.limit {
		// Attempts before a delay, which the broker does not know of, have
		// used the limit up: only its own count makes it dead-letter.
		s.mu.Lock()
		l.acks.add()
		l.ch.Reject(in.tag, true)
		l.acks.gone(in.tag)
		s.mu.Unlock()
		return
	}
	s.mu.Lock()
	l.acks.add()
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
	last.ch.Close() // still open where only the consumer was cancelled
	for {
		conn, err := s.c.consume.get(s.ctx)
		if err != nil {
			return nil
		}
		select {
		case <-s.drain:
			return nil
		default:
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
		case <-s.ctx.Done():
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

// giveBack ends the consumer and returns what was only prefetched.
func (s *subscriber) giveBack(l *life) {
	l.ch.Cancel(consumerTag, false)
	for d := range l.deliveries {
		s.put(l, &d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range s.local {
		// Not counted as an attempt, where the broker can tell.
		l.ch.Nack(d.tag, false, true)
		l.acks.gone(d.tag)
		delete(l.held, d.tag)
	}
	s.local = nil
	l.acks.flush()
}

// leave returns what was handed out and is still held, and ends the channel.
func (s *subscriber) leave(l *life) {
	s.mu.Lock()
	s.life = nil
	l.acks.flush()
	for tag := l.acks.base; tag < l.acks.next(); tag++ {
		if l.held[tag] != nil {
			l.ch.Reject(tag, true)
		}
	}
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
		// Not basic.nack, which newer brokers do not count.
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

// Drain implements driver.Drainer.
func (s *subscriber) Drain(ctx context.Context) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()
	if !again {
		close(s.drain)
		signal(s.ready)
	}
	select {
	case <-s.drained:
	case <-s.done:
	case <-ctx.Done():
		return ctx.Err()
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
		close(s.drain)
		signal(s.ready)
	}
	s.cancel()
	s.c.mu.Lock()
	delete(s.c.subscribers, s)
	s.c.mu.Unlock()
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
	message(&in.Message, d)
	count, counted := in.Message.Header[headerDelivered].(int64)
	if counted {
		delete(in.Message.Header, headerDelivered)
		delete(in.Message.Header, headerAcquired)
	}
	if counted || s.kind.kind == typeQuorum {
		in.Attempt = int(count) + 1
	}
	in.restore()
	if len(in.Message.Header) == 0 {
		in.Message.Header = nil
	}
	return in
}
