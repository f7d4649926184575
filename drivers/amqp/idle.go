package amqp

import (
	"context"
	"errors"
	"time"

	"github.com/polymq/polymq/driver"
)

// A subscriber to which nothing comes looks for its queue. The broker ends a consumer
// with its queue, and says so; but in a cluster (seen on 3.10) it does not say so to
// one in some dozens whose queue is deleted just when they begin, which would wait for
// ever. Hence the first look soon.
const (
	firstLook = 5 * time.Second // without a message
	nextLook  = 12              // times that
)

// finding is what a look finds.
type finding int

const (
	found    finding = iota // or not known
	deserted                // the queue has no consumer: it may be another one
	gone
)

// holdsNothing reports that nothing is held, so that nothing is lost where a queue was
// deserted only in the eyes of a broker that has no leader for it.
func (s *subscriber) holdsNothing(l *life) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(l.held) == 0
}

// look asks for the queue, and tells l what it has found.
func (s *subscriber) look(l *life) {
	if s.c.begin() != nil {
		return
	}
	go func() {
		defer s.c.tasks.Done()
		ctx, cancel := context.WithTimeout(s.ctx, answerTime)
		defer cancel()
		consumers := 0
		err := s.c.doOn(ctx, s.link, func(ch *channel) error {
			q, err := ch.QueueDeclarePassive(s.queue, true, false, false, false, nil)
			consumers = q.Consumers
			return err
		})
		f := found
		switch {
		case errors.Is(err, driver.ErrNotFound):
			f = gone
		case err == nil && consumers == 0:
			f = deserted
		}
		select {
		case l.found <- f:
		default: // the life is over, or there is one to be read yet
		}
	}()
}
