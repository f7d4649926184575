package amqp

import (
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"sync"
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

	mu      sync.Mutex
	session *session // nil while there is no channel
	next    *session // a connection whose channel is still to be opened
	queue   []item   // accepted, not sent
	pruned  int      // length of queue when resolved items were last taken out
	flight  []item   // sent, in the order of their delivery tags
	careful int      // so many items at the queue's head go one at a time
	seq     int64
	nacks   int       // in a row
	nacked  time.Time // the first of them
	end     error     // why nothing is accepted any more

	// ids counts the IDs in flight by hash, so that a publish whose ID may be
	// in flight already is marked, and its return is told from the other's.
	ids [1 << 14]uint32
}

type item struct {
	p        *driver.Publishing // nil once resolved
	from     *publisher
	id       string
	mark     int64 // the value of headerReturn; 0: none
	slot     int32 // in outbox.ids; -1: not counted
	tried    bool  // an earlier try had an unknown outcome
	returned bool
	confirm  *amqp091.DeferredConfirmation
}

// session is the life of one confirming channel.
type session struct {
	conn    *amqp091.Connection
	wire    *wire
	ch      *amqp091.Channel
	returns chan amqp091.Return
	closed  chan *amqp091.Error
	check   *channel
	known   map[string]bool // exchanges that were there
}

// maxReturns is more than one read of amqp091's 4 KiB buffer can hold.
const maxReturns = 256

// A queue of 3.10 can fall into refusing everything on a channel; so many
// refusals in a row, over so long, make a new one.
const (
	maxNacks   = 50
	nackPeriod = time.Second
)

func newOutbox(c *Conn) *outbox {
	return &outbox{c: c, seed: maphash.MakeSeed(), wake: make(chan struct{}, 1)}
}

func (o *outbox) prepare(w *wire) {
	w.onRead = o.sweep
	w.onRoom = func() { signal(o.wake) }
}

func (o *outbox) connected(conn *amqp091.Connection, w *wire) {
	o.mu.Lock()
	o.next = &session{conn: conn, wire: w}
	o.mu.Unlock()
	signal(o.wake)
}

// run is the outbox's goroutine.
func (o *outbox) run() {
	var closed chan *amqp091.Error
	var again <-chan time.Time
	for {
		select {
		case <-o.wake:
		case <-again:
		case err := <-closed:
			closed = nil
			o.ended(err)
		case <-o.c.ctx.Done():
			return
		}
		again = nil
		o.mu.Lock()
		s, next := o.session, o.next
		stuck := s != nil && o.nacks >= maxNacks && time.Since(o.nacked) > nackPeriod
		o.mu.Unlock()
		if stuck {
			s.ch.Close()
			continue
		}
		if s == nil && next != nil {
			if err := next.open(); err != nil {
				if !next.conn.IsClosed() {
					o.c.cfg.Logger.Warn("polymq: no channel to publish on", "scheme", "amqp", "error", err)
					again = time.After(minPause)
				}
				continue
			}
			closed = next.closed
			o.mu.Lock()
			o.session, o.nacks = next, 0
			o.mu.Unlock()
		}
		o.pump()
	}
}

func (s *session) open() error {
	ch, err := s.conn.Channel()
	if err != nil {
		return err
	}
	s.returns = ch.NotifyReturn(make(chan amqp091.Return, maxReturns))
	s.closed = ch.NotifyClose(make(chan *amqp091.Error, 1))
	if err := ch.Confirm(false); err != nil {
		ch.Close()
		return err
	}
	s.ch = ch
	s.check = &channel{conn: s.conn}
	s.known = map[string]bool{"": true, "amq.direct": true, "amq.fanout": true, "amq.topic": true, "amq.headers": true, "amq.match": true}
	return nil
}

// publish takes a batch over; it does not block.
func (o *outbox) publish(from *publisher, batch []*driver.Publishing) {
	queued := false
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
		for _, p := range part {
			it := item{p: p, from: from, id: p.ID, slot: -1}
			if len(o.queue) > 0 || !o.sendable(from.exchange) || !o.send(&it) {
				if it.p != nil {
					o.push(it)
					queued = true
				}
				continue
			}
			select {
			case <-it.confirm.Done():
				ready = true // the reader may have looked before it was in flight
			default:
			}
		}
		o.mu.Unlock()
		if ready {
			o.sweep()
		}
	}
	if queued {
		signal(o.wake)
	}
}

func (o *outbox) ending(from *publisher) error {
	if from.closed {
		return driver.ErrClosed
	}
	return o.end
}

// push queues an item; what callers have given up on is taken out now and
// then, so that a long outage does not gather it.
func (o *outbox) push(it item) {
	if len(o.queue) >= 2*o.pruned+1024 {
		kept := o.queue[:0]
		for i, q := range o.queue {
			if !q.p.Resolved() {
				kept = append(kept, q)
			} else if i < o.careful {
				o.careful--
			}
		}
		clear(o.queue[len(kept):])
		o.queue = kept
		o.pruned = len(kept)
	}
	o.queue = append(o.queue, it)
}

// sendable reports whether an item for the exchange may be sent now.
func (o *outbox) sendable(exchange string) bool {
	s := o.session
	return s != nil && o.careful == 0 && s.known[exchange] && !s.wire.congested()
}

// send writes an item on the channel and puts it in flight; false where the
// channel has ended. The caller holds the mutex.
func (o *outbox) send(it *item) bool {
	s := o.session
	p := publishingOf(it.p.Message, it.id)
	if it.p.Message.ID != "" {
		it.slot = int32(maphash.String(o.seed, it.id) % uint64(len(o.ids)))
		if o.ids[it.slot] > 0 {
			o.seq++
			it.mark = o.seq
			p.Headers = maps.Clone(p.Headers)
			if p.Headers == nil {
				p.Headers = amqp091.Table{}
			}
			p.Headers[headerReturn] = it.mark
		}
	}
	confirm, err := s.ch.PublishWithDeferredConfirm(it.from.exchange, it.p.Message.Key, !it.from.drop, false, p)
	if err != nil {
		if s.ch.IsClosed() || s.conn.IsClosed() || lost(err) && !errors.Is(err, amqp091.ErrFieldType) {
			return false
		}
		it.p.Resolve(wrap(err))
		it.p = nil
		return false
	}
	it.confirm = confirm
	it.returned = false
	if it.slot >= 0 {
		o.ids[it.slot]++
	}
	o.flight = append(o.flight, *it)
	return true
}

// pump sends what is queued, as far as that is possible now.
func (o *outbox) pump() {
	for n := 0; ; n++ {
		o.mu.Lock()
		s := o.session
		for len(o.queue) > 0 && o.queue[0].p.Resolved() {
			o.pop()
		}
		if s == nil || len(o.queue) == 0 || s.wire.congested() || o.careful > 0 && len(o.flight) > 0 {
			o.mu.Unlock()
			return
		}
		exchange := o.queue[0].from.exchange
		if !s.known[exchange] {
			o.mu.Unlock()
			if !o.lookUp(s, exchange) {
				return
			}
			continue
		}
		it := o.queue[0]
		sent := o.send(&it)
		if sent || it.p == nil {
			o.pop()
		}
		o.mu.Unlock()
		if !sent && it.p != nil {
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

// lookUp asks whether an exchange exists, on a channel that may break, and
// resolves the item at the queue's head where it does not. It reports whether
// the pump can go on.
func (o *outbox) lookUp(s *session, exchange string) bool {
	err := s.check.reopen()
	if err == nil {
		err = s.check.ExchangeDeclarePassive(exchange, "direct", true, false, false, false, nil)
	}
	o.mu.Lock()
	if err == nil {
		s.known[exchange] = true
		o.mu.Unlock()
		return true
	}
	if lost(err) || len(o.queue) == 0 || o.queue[0].from.exchange != exchange {
		o.mu.Unlock()
		return !s.conn.IsClosed() && !s.ch.IsClosed()
	}
	it := o.pop()
	o.mu.Unlock()
	it.p.Resolve(refused(it, wrap(err)))
	return true
}

// refused is err, unless an earlier try of the item may have succeeded.
func refused(it item, err error) error {
	if it.tried {
		return fmt.Errorf("%w; sent again, it was refused: %w", driver.ErrUnconfirmed, err)
	}
	return err
}

// fail resolves everything, and whatever comes later.
func (o *outbox) fail(err error) {
	o.mu.Lock()
	o.end = err
	o.mu.Unlock()
	o.abandon(nil, err)
}

// abandon resolves what is pending from one publisher, or from all.
func (o *outbox) abandon(from *publisher, err error) {
	var pending []*driver.Publishing
	o.mu.Lock()
	if from != nil {
		from.closed = true
	}
	for _, items := range [][]item{o.queue, o.flight} {
		for _, it := range items {
			if it.p != nil && (from == nil || it.from == from) {
				pending = append(pending, it.p)
			}
		}
	}
	o.mu.Unlock()
	for _, p := range pending {
		p.Resolve(err)
	}
}
