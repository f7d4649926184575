package amqp

import "github.com/polymq/polymq/driver"

// renewal puts a dead letter, which came to a queue with MaxAttempts, into it
// once more as a new message: from RabbitMQ 4 it brings the count of the queue
// where it died, which on 4.3 is used against the limit of this one.
type renewal struct {
	s  *subscriber
	in *delivery
}

func (s *subscriber) renew(in *delivery) {
	from := &publisher{out: s.c.out, exchange: in.Exchange, queue: s.queue}
	from.schedule(&driver.Publishing{Message: &in.sent, ID: in.sent.ID, Owner: &renewal{s, in}})
}

// Resolved is told on any goroutine. Where the copy was not stored, the message
// is handed out as it is.
func (r *renewal) Resolved(p *driver.Publishing) {
	s, in := r.s, r.in
	if p.Err() == nil && s.settle(in, driver.Ack) == nil {
		return
	}
	s.mu.Lock()
	if l := in.life; s.life == l && l.held[in.tag] == in {
		s.local = append(s.local, in)
	}
	s.mu.Unlock()
	signal(s.ready)
}
