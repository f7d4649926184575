package amqp

import (
	"errors"
	"fmt"

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
			if o.flight[i].confirm == nil {
				continue
			}
			select {
			case <-o.flight[i].confirm.Done():
				// amqp091 nacks what is pending when a channel ends: unknown.
				if o.flight[i].confirm.Acked() || !s.ch.IsClosed() {
					done[n] = i
					n++
				}
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
			o.nacks.count(it.from.exchange, acked)
			if it.p != nil {
				var known bool
				if known, outcome[n].err = o.outcome(it, s, acked); known {
					outcome[n].p = it.p
					n++
				}
			}
			o.land(it)
		}
		o.trim()
		wake := len(o.queue) > 0 && len(o.flight) == 0 || len(o.nacks.later)+len(o.nacks.doubts) > 0 || o.nacks.row >= maxNacks
		o.mu.Unlock()
		for i := range n {
			outcome[i].p.Resolve(outcome[i].err)
		}
		if wake {
			signal(o.wake)
		}
		if found < len(done) {
			return
		}
	}
}

// outcome is how it went with an item; false where that is not known yet.
func (o *outbox) outcome(it *item, s *session, acked bool) (known bool, err error) {
	switch {
	case !acked:
		return o.nacked(it, s)
	case it.returned && !it.from.drop:
		err := fmt.Errorf("%w: exchange %q, key %q", driver.ErrUnroutable, it.from.exchange, it.key)
		it.tried = it.tried || it.partly
		return true, refused(*it, err)
	}
	return true, nil
}

// refused is err, unless an earlier try of the item may have succeeded: then
// the error is no refusal, and matches none, but tells of the broker's answer.
func refused(it item, err error) error {
	if !it.tried {
		return err
	}
	var answer *amqp091.Error
	if errors.As(err, &answer) {
		return fmt.Errorf("%w; another try was refused: %w", driver.ErrUnconfirmed, answer)
	}
	return fmt.Errorf("%w; another try was refused: %v", driver.ErrUnconfirmed, err)
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
	for n < len(o.flight) && o.flight[n].confirm == nil {
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

// markReturned finds what came back. Where no mark agrees, as when somebody on
// the way took it out, the oldest with the ID is as good as any.
func (o *outbox) markReturned(r *amqp091.Return) {
	mark, _ := r.Headers[headerReturn].(int64)
	var oldest *item
	for i := range o.flight {
		it := &o.flight[i]
		if it.confirm == nil || it.returned || it.id != r.MessageId || it.from.exchange != r.Exchange {
			continue
		}
		if it.mark == mark {
			it.returned = true
			return
		}
		if oldest == nil {
			oldest = it
		}
	}
	if oldest != nil {
		oldest.returned = true
	}
}
