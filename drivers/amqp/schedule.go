package amqp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// scheduled is a publishing that travels as a copy: one with a delay, or to a
// queue whatever the bindings. The copy is made while the application's message
// is certainly as it was given.
type scheduled struct {
	c     *Conn
	from  *publisher         // the application's
	p     *driver.Publishing // the application's
	m     driver.Message     // the copy
	units uint64             // of the levels it passes first; 0: straight to from.queue
	again bool               // the way was not there
	tried bool               // an earlier try had an unknown outcome
	waits bool               // nobody has its outcome in hand; guarded by schedule.mu
}

// schedule sends x, published to an exchange, as a copy.
func (p *publisher) schedule(x *driver.Publishing, exchange string) {
	s := &scheduled{c: p.out.c, from: p, p: x, m: travelling(x.Message, exchange), units: unitsOf(x.Message.Delay)}
	h := s.m.Header
	if p.queue != "" && s.m.UserID != "" {
		h[headerUser], s.m.UserID = s.m.UserID, "" // the broker takes only this connection's own
	}
	if s.units == 0 {
		h[headerQueue], s.m.TTL = p.queue, x.Message.TTL
		if p.bound.Load() && !s.c.scheduled.busy() { // else it would overtake
			s.send()
			return
		}
		s.c.schedule(s)
		return
	}
	if toMover(&s.m); p.queue != "" {
		h[headerBack] = p.queue
	}
	s.limit()
	s.c.schedule(s)
}

// limit leaves to the mover what is more than the levels can hold.
func (s *scheduled) limit() {
	const most = 1<<delayLevels - 1
	if s.units > most {
		s.m.Header[headerRest] = int64(s.units - most)
		s.units = most
	}
}

// travelling is m as it passes the levels: what the broker would interpret or
// drop on the way stands in headers.
func travelling(m *driver.Message, exchange string) driver.Message {
	t := *m
	h := make(driver.Header, len(m.Header)+8)
	for k, v := range m.Header {
		h[escape(k)] = v // its x-death goes into headerDeath, as with any message
	}
	for prefix, keep := range map[string]string{prefixFirst: headerFirst, prefixLast: headerLast} {
		if end := takeEnd(h, prefix); end != nil {
			h[keep] = end
		}
	}
	if bcc, ok := h["BCC"]; ok {
		delete(h, "BCC")
		h[headerBCC] = bcc
	}
	if m.TTL > 0 {
		h[headerTTL] = int64((m.TTL + time.Millisecond - 1) / time.Millisecond)
	}
	h[headerExchange] = exchange
	t.Header, t.TTL, t.Delay = h, 0, 0
	return t
}

// schedule is what waits for its exchange and the levels to be looked at.
type schedule struct {
	mu      sync.Mutex
	waiting []*scheduled
	asked   []*scheduled // taken from waiting, being looked at
	pruned  int          // length of waiting when given-up ones were last taken out
	running bool
}

func (c *Conn) schedule(s *scheduled) {
	x := &c.scheduled
	x.mu.Lock()
	if s.from.closed.Load() { // Close may have abandoned what waits already
		x.mu.Unlock()
		s.refuse(driver.ErrClosed)
		return
	}
	s.waits = true
	if len(x.waiting) >= 2*x.pruned+1024 {
		x.waiting = slices.DeleteFunc(x.waiting, func(s *scheduled) bool { return s.p.Resolved() })
		x.pruned = len(x.waiting)
	}
	x.waiting = append(x.waiting, s)
	start := !x.running
	x.running = true
	x.mu.Unlock()
	if !start {
		return
	}
	if c.begin() != nil {
		c.dispatchEnd()
		return
	}
	go func() {
		defer c.tasks.Done()
		c.dispatch()
	}()
}

func (x *schedule) busy() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.running
}

// take is what waits; nil when there is nothing, and then nobody runs.
func (x *schedule) take() []*scheduled {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.asked = x.waiting
	x.waiting, x.pruned = nil, 0
	x.running = len(x.asked) > 0
	return x.asked
}

// claim takes a publishing's outcome in hand; false where that was abandoned,
// and the publishing may be another message's.
func (x *schedule) claim(s *scheduled) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	waited := s.waits
	s.waits = false
	return waited
}

// abandon resolves what one publisher has waiting, or being looked at.
func (x *schedule) abandon(from *publisher, err error) {
	x.mu.Lock()
	var pending []*scheduled
	take := func(s *scheduled) bool {
		if !s.waits || s.from != from {
			return false
		}
		s.waits = false
		pending = append(pending, s)
		return true
	}
	x.waiting = slices.DeleteFunc(x.waiting, take)
	for _, s := range x.asked {
		take(s)
	}
	x.mu.Unlock()
	for _, s := range pending {
		s.p.Resolve(err)
	}
}

// refuse resolves what is not sent, or not once more.
func (s *scheduled) refuse(err error) { s.p.Resolve(refused(item{tried: s.tried}, err)) }

// dispatchEnd refuses what waits, after Close.
func (c *Conn) dispatchEnd() {
	for batch := c.scheduled.take(); len(batch) > 0; batch = c.scheduled.take() {
		for _, s := range batch {
			if c.scheduled.claim(s) {
				s.refuse(driver.ErrClosed)
			}
		}
	}
}

// dispatch sends what waits, and ends when nothing does. Whatever gathers while
// it asks the broker shares the next question.
func (c *Conn) dispatch() {
	for batch := c.scheduled.take(); len(batch) > 0; batch = c.scheduled.take() {
		var units uint64
		for _, s := range batch {
			units |= s.units
			if s.again {
				c.delays.forget()
			}
		}
		missing := map[target]error{}
		var err error
		if units > 0 {
			if err = c.ensureLevels(c.ctx, units); err == nil {
				err = c.ensureDue(c.ctx)
			}
		}
		for _, s := range batch {
			if s.p.Resolved() {
				continue // its caller has given up
			}
			failed, asked := missing[s.target()]
			if !asked {
				failed = unknownWhenClosed(s.look())
				missing[s.target()] = failed
			}
			if failed == nil && s.units > 0 {
				failed = unknownWhenClosed(err)
			}
			switch {
			case !c.scheduled.claim(s), s.p.Resolved():
			case failed != nil:
				s.refuse(failed)
			default:
				s.send()
			}
		}
	}
}

// unknownWhenClosed is err as the outcome of a publishing.
func unknownWhenClosed(err error) error {
	if errors.Is(err, driver.ErrClosed) || errors.Is(err, context.Canceled) {
		return driver.ErrUnconfirmed
	}
	return err
}

// target is what must be there for a publishing to be sent.
type target struct {
	exchange, queue string
	delayed         bool
}

func (s *scheduled) target() target {
	if s.units == 0 {
		return target{queue: s.from.queue}
	}
	return target{exchange: s.from.exchange, queue: s.from.queue, delayed: true}
}

// look asks whether the target is there; a queue it makes reachable, with a relay
// where it may be gone when the message is due.
func (s *scheduled) look() error {
	t := s.target()
	if t.queue != "" {
		bind := bindReturn
		if t.delayed {
			if err := s.from.learn(s.c.ctx); err != nil {
				return err
			}
			bind = func(ch *channel, queue string) error { return declareRelay(ch, queue, s.from.kind.temporary) }
		}
		err := s.c.bindTarget(t.queue, bind)
		s.from.bound.Store(err == nil)
		return err
	}
	if _, always := routing.Predeclared(t.exchange); t.exchange == "" || always {
		return nil
	}
	return s.c.do(s.c.ctx, func(ch *channel) error {
		return ch.ExchangeDeclarePassive(t.exchange, "direct", true, false, false, false, nil)
	})
}

// bindTarget makes a queue reachable whatever the bindings, as delayed copies
// reach it.
func (c *Conn) bindTarget(queue string, bind func(*channel, string) error) error {
	if err := c.ensureLevels(c.ctx, 0); err != nil {
		return err
	}
	return noQueue(queue, c.doWith(c.ctx, []string{queue}, func(ch *channel) error { return bind(ch, queue) }))
}

// noQueue is err as the outcome of a publishing to the queue.
func noQueue(queue string, err error) error {
	if errors.Is(err, driver.ErrNotFound) {
		return fmt.Errorf("%w: queue %q: %v", driver.ErrUnroutable, queue, err)
	}
	return err
}

// learn asks once what decides how long the queue's relay stands.
func (p *publisher) learn(ctx context.Context) error {
	if p.learned {
		return nil
	}
	kind, err := p.out.c.kindOf(ctx, p.queue)
	if err != nil && !errors.Is(err, driver.ErrPermission) {
		return noQueue(p.queue, err)
	}
	p.learned, p.kind = true, kind
	return nil
}

// send puts the copy into the outbox.
func (s *scheduled) send() {
	m := s.m
	exchange := exchangeIn
	if s.units > 0 {
		exchange = addLevels(m.Header, s.units)
	}
	p := &driver.Publishing{Message: &m, ID: s.p.ID, Owner: s}
	from := &publisher{out: s.c.out, own: true, exchange: exchange, parent: s.from}
	from.Publish(s.c.ctx, []*driver.Publishing{p}, false)
}

// Resolved hands the outcome of the copy on. Where the way was not there, since
// somebody has deleted it, it is made anew.
func (s *scheduled) Resolved(p *driver.Publishing) {
	err := p.Err()
	nowhere := errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrUnroutable)
	switch {
	case nowhere && !s.again:
		s.again = true
		s.c.schedule(s)
		return
	case nowhere && s.units == 0 && s.from.drop:
		err = nil
	case nowhere && s.units > 0:
		err = fmt.Errorf("%w: the delay levels %s* are being deleted: %v", driver.ErrUnconfirmed, delayPrefix, err)
	}
	s.p.Resolve(err)
}
