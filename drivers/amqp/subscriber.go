package amqp

import (
	"context"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// ackDelay is how long an acknowledgement may wait for others. One that comes
// after a pause waits for none: there it is what the broker has to do beside the
// next message that costs time.
const ackDelay, ackPause = 2 * time.Millisecond, time.Millisecond

// maxPrefetch is the most that AMQP can ask for; beyond, the client would ask for what
// is left of the number, where 0 is no limit.
const maxPrefetch = 1<<16 - 1

// subscriber implements driver.Subscriber on one channel with one goroutine,
// which takes deliveries in, flushes acknowledgements that nothing else has
// flushed, and consumes again after the connection was lost.
type subscriber struct {
	c        *Conn
	link     *link // that it consumes on
	queue    string
	prefetch int
	raw      bool // deliveries are the driver's own, and stay as they came

	exclusive *exclusive // its queue, where that is one
	renewals  renewals

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	ready   chan struct{} // cap 1: something to take, or the end
	drain   chan struct{} // closed by Drain and Close
	drained chan struct{} // closed when nothing is taken in any more
	done    chan struct{} // closed when the goroutine has ended
	timer   *time.Timer
	warn    sync.Once // of what cannot be learned of the queue

	mu     sync.Mutex
	asked  *amqp091.Connection // the one that consumes, or was asked to
	life   *life               // nil while there is no channel
	local  []*delivery         // taken in, not yet handed out
	armed  bool                // the timer is set
	acked  time.Time           // acknowledgements were sent
	closed bool                // by Drain or Close
	late   *time.Timer         // set by Close
	err    error               // why Receive ends once local is empty
	gone   bool                // counted out of its queue
}

// Subscriber implements driver.Conn.
func (c *Conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	s, err := c.subscriber(ctx, c.consume, cfg, false)
	if err != nil {
		return nil, err
	}
	return s, nil
}

func (c *Conn) subscriber(ctx context.Context, l *link, cfg driver.SubscriberConfig, raw bool) (*subscriber, error) {
	s := &subscriber{
		raw:      raw,
		c:        c,
		link:     l,
		queue:    cfg.Queue,
		prefetch: min(max(cfg.Prefetch, 1), maxPrefetch),
		ready:    make(chan struct{}, 1),
		drain:    make(chan struct{}),
		drained:  make(chan struct{}),
		done:     make(chan struct{}),
		timer:    time.NewTimer(time.Hour),
	}
	s.timer.Stop()
	s.renewals.to = &publisher{out: c.out, queue: cfg.Queue}
	first, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.life = first
	s.exclusive = c.exclusives.joined(s.queue)
	s.ctx, s.cancel = context.WithCancel(c.ctx)
	c.mu.Lock()
	c.subscribers[s] = struct{}{}
	c.mu.Unlock()
	go s.run(first)
	return s, nil
}

// run is the subscriber's goroutine.
func (s *subscriber) run(l *life) {
	defer s.c.tasks.Done()
	defer func() {
		s.leaveQueue()
		close(s.done)
		s.mu.Lock()
		if s.late != nil {
			s.late.Stop()
		}
		s.mu.Unlock()
	}()
	for l != nil && s.serve(l) {
		l = s.again()
	}
}

// serve takes deliveries in and sends acknowledgements until the channel's
// end; false when the subscriber has closed.
func (s *subscriber) serve(l *life) bool {
	deliveries, drain := l.deliveries, s.drain
	idle := time.NewTimer(s.c.idle)
	defer idle.Stop()
	came, last := false, found
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return true
			}
			came = true
			s.put(l, &d)
		case <-idle.C:
			if came {
				came = false
				idle.Reset(s.c.idle)
			} else {
				s.look(l)
				idle.Reset(nextLook * s.c.idle)
			}
		case f := <-l.found:
			if drain == nil {
				continue
			}
			if f == gone || f == deserted && last == deserted && s.holdsNothing(l) {
				return true
			}
			if last = f; f == deserted {
				idle.Reset(s.c.idle)
			}
		case <-s.timer.C:
			s.mu.Lock()
			s.armed = false
			s.flush(l)
			s.mu.Unlock()
		case <-drain:
			s.endConsumer(l)
			if s.ctx.Err() == nil {
				s.giveBack(l)
			}
			close(s.drained)
			idle.Stop()
			deliveries, drain = nil, nil
		case <-s.ctx.Done():
			if drain != nil {
				s.endConsumer(l)
			}
			s.leave(l)
			return false
		}
	}
}

func (s *subscriber) put(l *life, d *amqp091.Delivery) {
	in := s.deliver(l, d)
	if limit := l.kind.limit; limit > 0 && in.Attempt > limit && in.count < limit {
		// Attempts before a delay, which the broker does not know of, have
		// used the limit up: only its own count makes it dead-letter. A count
		// that is there already shows that the limit is not.
		s.mu.Lock()
		l.acks.add()
		l.ch.Reject(in.tag, true)
		l.acks.gone(in.tag)
		s.mu.Unlock()
		return
	}
	renew := in.carried > 0 && in.Attempt == 1 && l.kind.limit > 0 && !s.renewals.forbidden.Load()
	s.mu.Lock()
	l.acks.add()
	l.held[in.tag] = in
	if !renew {
		s.local = append(s.local, in)
	}
	s.mu.Unlock()
	if renew {
		s.renew(in)
	} else {
		signal(s.ready)
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
		if 2*l.acks.pending >= s.prefetch {
			err = s.flush(l)
		} else if !s.armed {
			err = s.ackSoon(l)
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

// ackSoon sees to the first acknowledgement after others were sent. The caller holds
// the mutex.
func (s *subscriber) ackSoon(l *life) error {
	if time.Since(s.acked) >= ackPause {
		return s.flush(l)
	}
	s.armed = true
	s.timer.Reset(ackDelay)
	return nil
}

// flush sends the acknowledgements that there are. The caller holds the mutex.
func (s *subscriber) flush(l *life) error {
	if l.acks.pending > 0 {
		s.acked = time.Now()
	}
	return l.acks.flush()
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

// answerTime is how long the broker may take to answer a subscriber that
// closes. After that the connection is broken off, which gives back what is
// held as well.
const answerTime = 5 * time.Second

// Close implements driver.Subscriber. It goes on when ctx has ended.
func (s *subscriber) Close(ctx context.Context) error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	if s.late == nil {
		s.late = time.AfterFunc(answerTime, s.breakOff)
	}
	s.mu.Unlock()
	s.cancel()
	if !again {
		close(s.drain)
		signal(s.ready)
	}
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

// breakOff ends the connection under a subscriber whose goroutine waits for an
// answer that does not come.
func (s *subscriber) breakOff() {
	select {
	case <-s.done:
		return
	default:
	}
	s.mu.Lock()
	conn := s.asked
	s.mu.Unlock()
	s.link.breakOff(conn)
}
