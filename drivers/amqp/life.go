package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// life is one channel of a subscriber; delivery tags belong to it.
type life struct {
	ch         *amqp091.Channel
	deliveries <-chan amqp091.Delivery
	found      chan finding // what a look at the queue has found
	acks       *acks
	held       map[uint64]*delivery // not settled, by tag
	// kind was asked after the consumer stood, and the broker ends a consumer
	// with its queue: it is of the queue that this life consumes, which
	// another process may have made anew since the last one.
	kind queueKind
	// relayedIn is the epoch in which the way of a delayed copy back to that
	// queue was declared; of whoever has the turn of Conn.delays.
	relayedIn int64
}

// consumerTag can be the same for all: each has its channel to itself.
const consumerTag = "polymq"

// open brings about the first life. What comes about when ctx has ended
// belongs to nobody and is ended: its consumer would take messages from the
// queue for as long as the connection lives.
func (s *subscriber) open(ctx context.Context) (*life, error) {
	var mu sync.Mutex
	var first *life
	abandoned := false
	err := s.c.doOn(ctx, s.link, func(ch *channel) error {
		l, err := s.consume(ctx, ch.conn)
		if err != nil {
			return err
		}
		mu.Lock()
		first = l
		late := abandoned
		mu.Unlock()
		if late {
			l.ch.Close()
			return ctx.Err()
		}
		return nil
	})
	if err == nil {
		err = s.c.begin()
	}
	if err == nil {
		return first, nil
	}
	mu.Lock()
	abandoned = true
	l := first
	mu.Unlock()
	if l != nil && s.c.begin() == nil {
		go func() {
			defer s.c.tasks.Done()
			l.ch.Close() // waits for the answer, which ctx does not
		}()
	}
	return nil, err
}

// consume opens a channel, starts to consume on it and learns what it
// consumes.
func (s *subscriber) consume(ctx context.Context, conn *amqp091.Connection) (*life, error) {
	s.mu.Lock()
	s.asked = conn
	s.mu.Unlock()
	if err := s.c.ensureExclusive(ctx, conn, s.queue); err != nil {
		return nil, err
	}
	ch, err := conn.Channel()
	if err != nil {
		return nil, err
	}
	l := &life{ch: ch, acks: newAcks(ch), held: make(map[uint64]*delivery, min(s.prefetch, 1024)), found: make(chan finding, 1)}
	if err = ch.Qos(s.prefetch, 0, false); err == nil {
		l.deliveries, err = ch.Consume(s.queue, consumerTag, false, false, false, false, nil)
		err = lacking(reading, err)
	}
	if s.raw && err == nil {
		l.kind.kind = typeQuorum
		return l, nil
	}
	if err == nil {
		l.kind, err = s.c.kindOf(ctx, s.queue)
		if errors.Is(err, driver.ErrPermission) {
			s.warn.Do(func() {
				s.c.cfg.Logger.Warn("polymq: cannot learn the queue's type and limit", "scheme", "amqp", "queue", s.queue, "error", err)
			})
			err = nil
		}
	}
	if err == nil {
		err = s.c.restoreReturn(ctx, s.queue)
	}
	if err != nil {
		ch.Close()
		return nil, err
	}
	return l, nil
}

// again brings about the next life: nil when there is none.
func (s *subscriber) again() *life {
	s.mu.Lock()
	last := s.life
	last.acks.flush() // the channel lives on where only the consumer was cancelled
	s.life = nil
	s.local = nil // the broker delivers them again
	conn := s.asked
	s.mu.Unlock()
	last.ch.Close()
	if conn.IsClosed() && s.c.exclusives.get(s.queue) != nil {
		s.fail(fmt.Errorf("%w: the exclusive queue %q ended with its connection; it is made anew, empty", driver.ErrNotFound, s.queue))
		return nil
	}
	for {
		conn, err := s.link.get(s.ctx)
		if err != nil {
			return nil
		}
		select {
		case <-s.drain:
			return nil
		default:
		}
		l, err := s.consume(s.ctx, conn)
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

// leaveQueue counts the subscriber out of its queue, once.
func (s *subscriber) leaveQueue() {
	s.mu.Lock()
	closed := s.closed && s.err == nil
	again := s.gone
	s.gone = true
	s.mu.Unlock()
	if !again && s.exclusive != nil {
		s.c.exclusives.left(s.exclusive, closed)
	}
}

// endConsumer has the broker send nothing more, and takes in what it had sent.
func (s *subscriber) endConsumer(l *life) {
	s.leaveQueue()
	l.ch.Cancel(consumerTag, false)
	for d := range l.deliveries {
		s.put(l, &d)
	}
}

// giveBack returns what was only prefetched.
func (s *subscriber) giveBack(l *life) {
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

// leave returns all that is still held, in order, so that a limit of the queue
// drops what it would have dropped had the channel just ended; and ends the
// channel.
func (s *subscriber) leave(l *life) {
	s.mu.Lock()
	s.life = nil
	l.acks.flush()
	prefetched := make(map[uint64]bool, len(s.local))
	for _, d := range s.local {
		prefetched[d.tag] = true
	}
	s.local = nil
	for tag := l.acks.base; tag < l.acks.next(); tag++ {
		switch {
		case l.held[tag] == nil:
		case prefetched[tag]:
			l.ch.Nack(tag, false, true) // not counted as an attempt, where the broker can tell
		default:
			l.ch.Reject(tag, true)
		}
	}
	s.mu.Unlock()
	l.ch.Close() // answered after what was sent before
}
