package emulate

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// subscriber hands out what a store's consumer puts into its inbox. Its one
// goroutine, the keeper, extends the holds and moves what the queue gives up.
type subscriber struct {
	c        *conn
	q        *Queue
	in       *Inbox
	consumer Consumer
	moves    mover
	dead     deadLetters

	ctx       context.Context // ends with Close
	stop      context.CancelFunc
	kept      chan struct{} // the keeper has ended
	closeOnce sync.Once
	closed    chan struct{} // Close has ended
	closeErr  error
}

func (c *conn) Subscriber(ctx context.Context, cfg driver.SubscriberConfig) (driver.Subscriber, error) {
	if err := reserved(cfg.Queue); err != nil {
		return nil, err
	}
	s, err := c.subscribe(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if drainer, ok := s.consumer.(Drainer); ok {
		return draining{s, drainer}, nil
	}
	return s, nil
}

func (c *conn) subscribe(ctx context.Context, cfg driver.SubscriberConfig) (*subscriber, error) {
	s := &subscriber{c: c, kept: make(chan struct{}), closed: make(chan struct{})}
	err := c.onQueue(ctx, cfg.Queue, func(q *Queue) (err error) {
		s.q, s.in = q, newInbox(q, max(cfg.Prefetch, 1), c.features.Lease)
		s.in.now = c.store.Now
		s.consumer, err = c.store.Consume(ctx, q, s.in)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.moves.init(c, s.ctx, s)
	if s.q.Name == delayedQueue {
		s.moves.patience = delayedPatience
	}
	s.dead.init(c, s.q)
	s.dead.aside = s.in.setAside
	go s.keep()
	c.mu.Lock()
	late := c.subs == nil
	if !late {
		c.subs[s] = struct{}{}
	}
	c.mu.Unlock()
	if late {
		_ = s.Close(ctx) // nobody has it
		return nil, driver.ErrClosed
	}
	return s, nil
}

// draining is a subscriber whose store can stop delivering before the end.
type draining struct {
	*subscriber
	drainer Drainer
}

func (s draining) Drain(ctx context.Context) error {
	s.in.Fail(driver.ErrClosed)
	return s.drainer.Drain(ctx)
}

func (s *subscriber) Receive(ctx context.Context, buf []*driver.Delivery) (int, error) {
	for {
		n, err := s.in.take(ctx, buf)
		if err != nil || s.q.MaxAttempts == 0 {
			return n, err
		}
		kept := 0
		for _, d := range buf[:n] {
			if d.Attempt > s.q.MaxAttempts {
				s.giveUp(d.Tag.(*Delivery), Exhausted)
				continue
			}
			buf[kept] = d
			kept++
		}
		if kept > 0 {
			return kept, nil
		}
	}
}

func (s *subscriber) Settle(ctx context.Context, dd *driver.Delivery, o driver.Outcome, delay time.Duration) error {
	d, ok := dd.Tag.(*Delivery)
	if !ok {
		return fmt.Errorf("%w: not a delivery of this subscriber", driver.ErrLost)
	}
	var reason Reason
	switch {
	case o == driver.Reject:
		reason = Rejected
	case o == driver.Nack && s.q.MaxAttempts > 0 && d.Attempt >= s.q.MaxAttempts:
		reason = Exhausted
	}
	if reason != "" {
		return s.bury(ctx, d, reason)
	}
	return s.settle(ctx, d, o, delay, true)
}

// bury begins to move a message to the dead-letter exchange; without one it is
// dropped.
func (s *subscriber) bury(ctx context.Context, d *Delivery, reason Reason) error {
	if s.q.DeadLetterExchange == "" {
		return s.settle(ctx, d, driver.Ack, 0, true)
	}
	if !s.in.holds(d) {
		return driver.ErrLost
	}
	s.dead.move(&s.moves, d, reason)
	return nil
}

func (s *subscriber) holds(v *move) bool { return s.in.holds(v.d) }

func (s *subscriber) moved(v *move, o driver.Outcome, delay time.Duration) { s.leave(v.d, o, delay) }

// leave settles what nobody waits for.
func (s *subscriber) leave(d *Delivery, o driver.Outcome, delay time.Duration) {
	if err := s.settle(s.ctx, d, o, delay, false); err != nil && !errors.Is(err, driver.ErrLost) {
		s.c.cfg.Logger.Warn("a message that was given up could not be settled; it comes again", "queue", s.q.Name, "error", err)
	}
}

// settle ends a hold, and tells the store of the room only when that has the settlement.
// Where it does not take place, undo leaves the hold as it was, before there is room.
func (s *subscriber) settle(ctx context.Context, d *Delivery, o driver.Outcome, delay time.Duration, undo bool) error {
	returns := o == driver.Nack
	lasted, worth := s.in.unhold(d, returns)
	if !lasted {
		if worth {
			signal(s.in.more)
		}
		return driver.ErrLost
	}
	err := s.consumer.Settle(ctx, d, o, delay)
	if undo && err != nil && !errors.Is(err, driver.ErrLost) && !errors.Is(err, driver.ErrClosed) {
		s.in.restore(d)
		worth = false
	}
	if returns {
		s.in.returned()
	} else if worth {
		signal(s.in.more)
	}
	return err
}

func (s *subscriber) Extend(ctx context.Context, dd *driver.Delivery) error {
	d, ok := dd.Tag.(*Delivery)
	if !ok || !s.in.holds(d) {
		return driver.ErrLost
	}
	if s.in.lease == 0 {
		return nil
	}
	return s.extend(ctx, []*Delivery{d})
}

// extend makes holds last for another lease, counted from when that was asked
// for; ErrLost when one of them is lost.
func (s *subscriber) extend(ctx context.Context, ds []*Delivery) error {
	asked := time.Now()
	lost, err := s.consumer.Extend(ctx, ds)
	if err != nil {
		return err
	}
	for _, d := range lost {
		s.in.release(d)
	}
	s.in.extended(ds, asked)
	if len(lost) > 0 {
		return driver.ErrLost
	}
	return nil
}

// giveUp ends a message that nobody is to have.
func (s *subscriber) giveUp(d *Delivery, reason Reason) {
	if s.q.DeadLetterExchange != "" {
		s.dead.move(&s.moves, d, reason)
	} else {
		s.leave(d, driver.Ack, 0)
	}
}

// keep is the keeper goroutine.
func (s *subscriber) keep() {
	defer close(s.kept)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	lease := s.in.lease
	due := time.Now().Add(lease / 3)
	var ds []*Delivery
	for {
		for _, d := range s.in.takeExpired() {
			s.giveUp(d, Expired)
		}
		wait := s.moves.step()
		if lease > 0 {
			if now := time.Now(); !now.Before(due) {
				due = now.Add(lease / 3)
				if ds = s.in.holding(ds[:0]); len(ds) > 0 {
					ctx, cancel := context.WithTimeout(s.ctx, lease/3)
					if err := s.extend(ctx, ds); err != nil && s.ctx.Err() == nil {
						s.c.cfg.Logger.Warn("holds could not be extended", "queue", s.q.Name, "error", err)
						due = now.Add(lease / 10)
					}
					cancel()
					clear(ds)
				}
			}
			wait = min(wait, time.Until(due))
		}
		timer.Reset(wait)
		select {
		case <-s.ctx.Done():
			return
		case <-s.in.expired:
		case <-s.moves.wake:
		case <-timer.C:
		}
	}
}

// Close gives up what has no attempt left, lets dead letters on their way
// arrive, then gives back the rest.
func (s *subscriber) Close(ctx context.Context) error {
	s.closeOnce.Do(func() {
		go func() {
			defer close(s.closed)
			s.c.mu.Lock()
			delete(s.c.subs, s)
			s.c.mu.Unlock()
			s.in.Fail(driver.ErrClosed)
			s.exhaust()
			s.moves.drain(ctx)
			s.stop()
			<-s.kept
			s.moves.end()
			s.closeErr = s.consumer.Close(ctx)
			if s.q.AutoDelete && !s.in.orphaned() {
				s.c.autoDelete(ctx, s.q)
			}
		}()
	})
	return ended(ctx, s.closed, &s.closeErr)
}
