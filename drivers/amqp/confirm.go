package amqp

import (
	"fmt"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// sweep resolves what has been confirmed. It runs on amqp091's reading
// goroutine before each read, when everything read so far was dispatched.
func (o *outbox) sweep() {
	var done [64]int
	var outcome [64]struct {
		p   *driver.Publishing
		err error
	}
	for {
		n := 0
		o.mu.Lock()
		s := o.session
		if s == nil || len(o.flight) == 0 {
			o.mu.Unlock()
			return
		}
		for i := range o.flight {
			if o.flight[i].p == nil {
				continue
			}
			select {
			case <-o.flight[i].confirm.Done():
				done[n] = i
				n++
			default:
			}
			if n == len(done) {
				break
			}
		}
		// A return comes before its confirmation, so it is there by now.
		o.takeReturns(s)
		found := n
		n = 0
		for _, i := range done[:found] {
			it := &o.flight[i]
			acked := it.confirm.Acked()
			if !acked && s.ch.IsClosed() {
				continue // amqp091 nacks what was pending when a channel ends: unknown
			}
			outcome[n].p, outcome[n].err = it.p, o.outcome(it, acked)
			n++
			o.land(it)
		}
		o.trim()
		wake := len(o.queue) > 0 && len(o.flight) == 0 || o.nacks >= maxNacks
		o.mu.Unlock()
		for i := range n {
			outcome[i].p.Resolve(outcome[i].err)
		}
		if wake {
			signal(o.wake)
		}
		if n < len(done) {
			return
		}
	}
}

func (o *outbox) outcome(it *item, acked bool) error {
	switch {
	case !acked:
		if o.nacks++; o.nacks == 1 {
			o.nacked = time.Now()
		}
		return driver.ErrRejected
	case it.returned && !it.from.drop:
		o.nacks = 0
		return fmt.Errorf("%w: exchange %q, key %q", driver.ErrUnroutable, it.from.exchange, it.p.Message.Key)
	}
	o.nacks = 0
	return nil
}

// land takes an item out of flight.
func (o *outbox) land(it *item) {
	if it.slot >= 0 {
		o.ids[it.slot]--
	}
	*it = item{}
}

// trim drops what has landed at the front.
func (o *outbox) trim() {
	n := 0
	for n < len(o.flight) && o.flight[n].p == nil {
		n++
	}
	if o.flight = o.flight[n:]; len(o.flight) == 0 {
		o.flight = o.flight[:0:0]
	}
}

func (o *outbox) takeReturns(s *session) {
	for {
		select {
		case r, ok := <-s.returns:
			if !ok {
				s.returns = nil
				return
			}
			o.markReturned(&r)
		default:
			return
		}
	}
}

func (o *outbox) markReturned(r *amqp091.Return) {
	mark, _ := r.Headers[headerReturn].(int64)
	for i := range o.flight {
		it := &o.flight[i]
		if it.p != nil && !it.returned && it.mark == mark && it.id == r.MessageId && it.from.exchange == r.Exchange {
			it.returned = true
			return
		}
	}
}

// ended takes in the end of the session: err is the channel's error, nil when
// the connection was lost. What is unresolved goes back to the queue's head,
// but for what the error is about.
func (o *outbox) ended(err *amqp091.Error) {
	o.sweep()
	o.mu.Lock()
	s := o.session
	o.session = nil
	if s == nil {
		o.mu.Unlock()
		return
	}
	if !s.conn.IsClosed() && o.next != nil && o.next.conn == s.conn {
		o.next = &session{conn: s.conn, wire: s.wire}
	}
	var back []item
	for i := range o.flight {
		it := o.flight[i]
		if it.p == nil {
			continue
		}
		o.land(&o.flight[i])
		if !it.p.Resolved() {
			it.confirm, it.mark, it.slot = nil, 0, -1
			back = append(back, it)
		}
	}
	o.flight = nil
	var guilty []item
	careful := false
	if soft(err) {
		back, guilty, careful = attribute(err, back)
	}
	for i := range back {
		back[i].tried = true
	}
	if careful {
		o.careful = len(back)
	} else if o.careful > 0 {
		o.careful += len(back)
	}
	o.queue = append(back, o.queue...)
	o.mu.Unlock()
	for _, it := range guilty {
		it.p.Resolve(refused(it, wrap(err)))
	}
	signal(o.wake)
}

// soft reports an error that a message brought upon its channel.
func soft(err *amqp091.Error) bool {
	if err == nil || !err.Server {
		return false
	}
	switch err.Code {
	case amqp091.ContentTooLarge, amqp091.AccessRefused, amqp091.NotFound, amqp091.ResourceLocked, amqp091.PreconditionFailed:
		return !nodeDown(err)
	}
	return false
}

// attribute finds the items that a channel error is about. Where it cannot,
// the items are to be sent again one at a time.
func attribute(err *amqp091.Error, items []item) (rest, guilty []item, careful bool) {
	if len(items) == 1 {
		return nil, items, false
	}
	var exchange string
	switch err.Code {
	case amqp091.NotFound:
		exchange = between(err.Reason, "no exchange '", "' in vhost")
	case amqp091.AccessRefused:
		exchange = between(err.Reason, "access to exchange '", "' in vhost")
	}
	last := -1
	for i, it := range items {
		if exchange != "" && it.from.exchange == exchange {
			last = i
		}
	}
	if last < 0 {
		return items, nil, true
	}
	for i, it := range items {
		// Those before the last one to a vanished exchange may have been
		// stored while it was there: they are looked up and told apart.
		if i == last || err.Code == amqp091.AccessRefused && it.from.exchange == exchange {
			guilty = append(guilty, it)
		} else {
			rest = append(rest, it)
		}
	}
	return rest, guilty, false
}

func between(s, before, after string) string {
	_, s, ok := strings.Cut(s, before)
	if i := strings.LastIndex(s, after); ok && i >= 0 {
		return s[:i]
	}
	return ""
}
