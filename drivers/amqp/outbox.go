package amqp

import (
	"errors"
	"hash/maphash"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// outbox is where all publishers of a connection put what they publish. What
// can be sent is sent on the caller's goroutine, which never blocks: the wire
// buffers. What cannot (connection lost or blocked, exchange not looked up
// yet) queues up for the outbox's one goroutine, in order. Outcomes are
// resolved on amqp091's reading goroutine, between two reads.
type outbox struct {
	c    *Conn
	seed maphash.Seed
	wake chan struct{} // cap 1
	// prompt says that a nack is told at once, whatever it means: the mover tries
	// again later.
	prompt bool
	// frame is the frame size of the last connection.
	frame atomic.Int64

	mu       sync.Mutex
	connects bool      // there was a connection
	session  *session  // nil while there is no channel
	next     *session  // a connection whose channel is still to be opened
	queue    []item    // accepted, not sent
	pruned   int       // length of queue when resolved items were last taken out
	flight   []item    // sent, in the order of their delivery tags
	careful  int       // so many items at the queue's head go one at a time
	solo     bool      // what is in flight is one of them
	soloEnd  time.Time // when that is not waited for any longer
	seq      int64
	nacks    nacks
	end      error // why nothing is accepted any more

	// ids counts the IDs in flight by hash, so that a publish whose ID may be
	// in flight already is marked, and its return is told from the other's.
	ids [1 << 14]uint32
}

// item is a publishing with what is still wanted of it when its caller may
// have given up, and owns the message again.
type item struct {
	p        *driver.Publishing // nil once its publisher was closed
	from     *publisher
	id, key  string
	mark     int64 // the value of headerReturn; 0: none
	slot     int32 // in outbox.ids; -1: not counted
	frame    int   // the frame size that it was found to fit
	tried    bool  // an earlier try had an unknown outcome
	late     bool  // going alone, it got no answer in time
	asked    bool  // it was there when its exchange was asked about
	returned bool
	later    *scheduled                    // whose copy it is
	deaths   uint8                         // connections that ended on it
	nacked   uint8                         // tries that ended in a nack
	young    bool                          // the last of them, while its channel was
	first    bool                          // and on the outbox's first connection
	partly   bool                          // which may have left it in some queues
	due      time.Time                     // of the next try, after a nack
	confirm  *amqp091.DeferredConfirmation // nil unless in flight
}

func (o *outbox) item(from *publisher, p *driver.Publishing) item {
	it := item{p: p, from: from, id: p.ID, key: p.Message.Key, slot: -1, frame: int(o.frame.Load())}
	if p.Message.ID != "" { // else it is a generated one, which nobody repeats
		it.slot = int32(maphash.String(o.seed, it.id) % uint64(len(o.ids)))
	}
	if from.own {
		if it.later, _ = p.Owner.(*scheduled); it.later != nil {
			it.tried = it.later.tried
		}
	}
	return it
}

// forsaken reports that nobody waits for the outcome any more.
func (it *item) forsaken() bool {
	return it.p == nil || it.p.Resolved() || it.later != nil && it.later.p.Resolved()
}

func newOutbox(c *Conn) *outbox {
	return &outbox{c: c, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1)}
}

// publish takes a batch over; it does not block. Where its caller waits, and is
// alone, its message leaves at once.
func (o *outbox) publish(from *publisher, batch []*driver.Publishing, wait bool) {
	queued, lone := false, wait && len(batch) == 1
	for len(batch) > 0 {
		// Not the whole batch under one lock: confirmations want it too.
		part := batch[:min(len(batch), 64)]
		batch = batch[len(part):]
		ready := false
		o.mu.Lock()
		if end := o.ending(from); end != nil {
			o.mu.Unlock()
			for _, p := range part {
				p.Resolve(end)
			}
			continue
		}
		var failed []failure
		for _, p := range part {
			it := o.item(from, p)
			if len(o.queue) > 0 || !o.sendable(from.exchange) {
				o.push(it)
				queued = true
				continue
			}
			if lone && len(o.flight) == 0 {
				o.session.wire.urgent.Store(true)
			}
			sent, err := o.send(&it)
			if lone {
				o.session.wire.urgent.Store(false)
			}
			switch {
			case err != nil:
				failed = append(failed, failure{p, err})
				continue
			case !sent:
				o.push(it)
				queued = true
				continue
			}
			select {
			case <-it.confirm.Done():
				ready = true // the reader may have looked before it was in flight
			default:
			}
		}
		o.mu.Unlock()
		for _, f := range failed {
			f.p.Resolve(f.err)
		}
		if ready {
			o.sweep()
		}
	}
	if queued {
		signal(o.wake)
	}
}

func (o *outbox) ending(from *publisher) error {
	if from.closed.Load() || from.parent != nil && from.parent.closed.Load() {
		return driver.ErrClosed
	}
	return o.end
}

// failure is an outcome that is to be told when the mutex is free again.
type failure struct {
	p   *driver.Publishing
	err error
}

// push queues an item; what callers have given up on is taken out now and
// then, so that a long outage does not gather it.
func (o *outbox) push(it item) {
	if len(o.queue) >= 2*o.pruned+1024 {
		o.filter(func(q *item) bool { return !q.forsaken() })
		o.pruned = len(o.queue)
	}
	o.queue = append(o.queue, it)
}

// delayed takes the delayed messages out of the queue that wait for a new
// session: a broker that was killed may have forgotten their way. Where one of
// all ended the connection, they stay, to be found out.
func (o *outbox) delayed() []*scheduled {
	if o.careful > 0 {
		return nil
	}
	var found []*scheduled
	o.filter(func(it *item) bool {
		s := it.later
		if s == nil || s.units == 0 || it.forsaken() {
			return true
		}
		s.tried = it.tried || it.partly
		found = append(found, s)
		return false
	})
	return found
}

// filter keeps in the queue what is to be kept.
func (o *outbox) filter(keep func(*item) bool) {
	kept, careful := o.queue[:0], o.careful
	for i := range o.queue {
		if keep(&o.queue[i]) {
			kept = append(kept, o.queue[i])
		} else if i < careful {
			o.careful--
		}
	}
	clear(o.queue[len(kept):])
	o.queue = kept
}

// sendable reports whether an item for the exchange may be sent now.
func (o *outbox) sendable(exchange string) bool {
	s := o.session
	return s != nil && o.careful == 0 && !o.solo && o.nacks.open() && s.known[exchange] && !s.wire.congested()
}

// directReply begins the key of a reply to a caller without a queue (RabbitMQ's
// direct reply-to): the broker hands it over, and returns it all the same where it
// is mandatory.
const directReply = "amq.rabbitmq.reply-to."

// send writes an item on the channel and puts it in flight; false where the
// channel has ended, an error where the item cannot be sent at all. The caller
// holds the mutex.
func (o *outbox) send(it *item) (sent bool, err error) {
	s := o.session
	p := publishingOf(it.p.Message, it.id, it.from.own)
	it.mark = 0
	if it.slot >= 0 && o.ids[it.slot] > 0 {
		o.seq++
		it.mark = o.seq
		p.Headers = maps.Clone(p.Headers)
		if p.Headers == nil {
			p.Headers = amqp091.Table{}
		}
		p.Headers[headerReturn] = it.mark
	}
	mandatory := !it.from.drop && (it.from.exchange != "" || !strings.HasPrefix(it.key, directReply))
	confirm, err := s.ch.PublishWithDeferredConfirm(it.from.exchange, it.key, mandatory, false, p)
	if err != nil {
		if s.ch.IsClosed() || s.conn.IsClosed() || lost(err) && !errors.Is(err, amqp091.ErrFieldType) {
			return false, nil
		}
		return false, refused(*it, wrap(err))
	}
	it.confirm = confirm
	it.returned = false
	if it.slot >= 0 {
		o.ids[it.slot]++
	}
	o.flight = append(o.flight, *it)
	return true, nil
}

// pump sends what is queued, as far as that is possible now.
func (o *outbox) pump() {
	for n := 0; ; n++ {
		o.mu.Lock()
		s := o.session
		for len(o.queue) > 0 && o.queue[0].forsaken() {
			o.pop()
		}
		if s == nil || len(o.queue) == 0 || s.wire.congested() || !o.nacks.open() || (o.careful > 0 || o.solo) && len(o.flight) > 0 {
			o.mu.Unlock()
			return
		}
		if exchange := o.queue[0].from.exchange; !s.known[exchange] {
			for i := range o.queue {
				it := &o.queue[i]
				it.asked = it.asked || it.from.exchange == exchange
			}
			o.mu.Unlock()
			if !o.lookUp(s, exchange) {
				return
			}
			continue
		}
		it := o.queue[0]
		sent := false
		var err error
		if frame := s.conn.Config.FrameSize; frame < it.frame {
			err = unfit(it.p.Message, it.id, frame, it.from.own)
		}
		if err == nil {
			sent, err = o.send(&it)
		} else {
			it.tried = it.tried || it.partly
			err = refused(it, err)
		}
		if sent || err != nil {
			if o.solo = sent && o.careful > 0; o.solo {
				o.soloEnd = time.Now().Add(soloTime)
			}
			o.pop()
		}
		o.mu.Unlock()
		if err != nil {
			it.p.Resolve(err)
		} else if !sent {
			return
		}
		if n%64 == 0 {
			o.sweep()
		}
	}
}

func (o *outbox) pop() item {
	it := o.queue[0]
	o.queue[0] = item{}
	o.queue = o.queue[1:]
	if len(o.queue) == 0 {
		o.queue, o.pruned = nil, 0
	}
	if o.careful > 0 {
		o.careful--
	}
	return it
}

// lookUp asks whether an exchange exists, on a channel that may break. Where it
// does not, that is the answer for all that was there before the question: the
// exchange may have been declared since. It reports whether the pump can go on.
func (o *outbox) lookUp(s *session, exchange string) bool {
	err := s.check.reopen()
	if err == nil {
		err = s.check.ExchangeDeclarePassive(exchange, "direct", true, false, false, false, nil)
	}
	if err != nil && lost(err) {
		return !s.conn.IsClosed() && !s.ch.IsClosed()
	}
	var missed []item
	o.mu.Lock()
	if err == nil {
		s.known[exchange] = true
	} else {
		o.filter(func(it *item) bool {
			if !it.asked || it.from.exchange != exchange || it.forsaken() {
				return true
			}
			missed = append(missed, *it)
			return false
		})
	}
	o.mu.Unlock()
	for _, it := range missed {
		it.tried = it.tried || it.partly
		it.p.Resolve(refused(it, wrap(lacking(writing, err)))) // RabbitMQ 4.3 shows no exchange to who may do nothing with it
	}
	return true
}

// fail resolves everything, and whatever comes later.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	o.end = err
	o.mu.Unlock()
	o.abandon(nil, err)
}

// abandon resolves what is pending from one publisher, or from all. First it
// takes that out: once resolved, a publishing may be another message's.
func (o *outbox) abandon(from *publisher, err error) {
	var pending []*driver.Publishing
	take := func(it *item) bool {
		if it.p == nil || from != nil && it.from != from && it.from.parent != from {
			return false
		}
		pending = append(pending, it.p)
		it.p = nil
		return true
	}
	o.mu.Lock()
	if from != nil {
		from.closed.Store(true)
	}
	o.filter(func(it *item) bool { return !take(it) })
	o.nacks.later = slices.DeleteFunc(o.nacks.later, func(it item) bool { return take(&it) })
	o.nacks.doubts = slices.DeleteFunc(o.nacks.doubts, func(d doubt) bool { return take(&d.item) })
	for i := range o.flight {
		take(&o.flight[i]) // in flight it stays: what comes back may be about it
	}
	o.mu.Unlock()
	for _, p := range pending {
		p.Resolve(err)
	}
}
