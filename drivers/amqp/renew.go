package amqp

import (
	"errors"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
)

// renewals puts dead letters, which came to a queue with MaxAttempts, into it
// once more as new messages: from RabbitMQ 4 they bring the count of the queue
// where they died, which on 4.3 is used against the limit of this one.
type renewals struct {
	to        *publisher
	forbidden atomic.Bool // the user may not
}

// renewal is one of them on its way.
type renewal struct {
	s  *subscriber
	in *delivery
}

func (s *subscriber) renew(in *delivery) {
	s.renewals.to.schedule(&driver.Publishing{Message: &in.sent, ID: in.sent.ID, Owner: &renewal{s, in}}, in.Exchange)
}

// Resolved is told on any goroutine. Where the copy was not stored, the message
// is handed out as it is.
func (r *renewal) Resolved(p *driver.Publishing) {
	s, in := r.s, r.in
	if p.Err() == nil && s.settle(in, driver.Ack) == nil {
		return
	}
	if errors.Is(p.Err(), driver.ErrPermission) && !s.renewals.forbidden.Swap(true) {
		s.c.cfg.Logger.Warn("polymq: the attempts that a dead letter had where it died may count in this queue too: give the user the permissions configure and read on polymq.delay.*, and write on the queue", "scheme", "amqp", "queue", s.queue, "error", p.Err())
	}
	s.mu.Lock()
	if l := in.life; s.life == l && l.held[in.tag] == in {
		s.local = append(s.local, in)
	}
	s.mu.Unlock()
	signal(s.ready)
}
