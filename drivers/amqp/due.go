package amqp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// A message that is published with a delay passes the levels, and comes from
// exchangeOut into dueQueue. A mover publishes it from there to its exchange,
// or, where nothing takes it, to exchangeLost, which leads to unroutable.
const (
	exchangeLost = delayPrefix + "unroutable"
	unroutable   = "polymq.unroutable"
)

// scheduled is a publishing with a delay, and its copy for the levels. The copy
// is made while the application's message is certainly as it was given.
type scheduled struct {
	c     *Conn
	from  *publisher         // the application's
	p     *driver.Publishing // the application's
	m     driver.Message     // the copy
	units uint64             // of the levels it passes first
	again bool               // the levels were not there
}

func (p *publisher) schedule(x *driver.Publishing) {
	s := &scheduled{c: p.out.c, from: p, p: x, m: travelling(x.Message, p.exchange), units: unitsOf(x.Message.Delay)}
	s.m.Header[headerDue] = true
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
	pruned  int // length of waiting when given-up ones were last taken out
	running bool
}

func (c *Conn) schedule(s *scheduled) {
	x := &c.scheduled
	x.mu.Lock()
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
		c.dispatchEnd(driver.ErrClosed)
		return
	}
	go func() {
		defer c.tasks.Done()
		c.dispatch()
	}()
}

// take is what waits; nil when there is nothing, and then nobody runs.
func (x *schedule) take() []*scheduled {
	x.mu.Lock()
	defer x.mu.Unlock()
	batch := x.waiting
	x.waiting, x.pruned = nil, 0
	x.running = len(batch) > 0
	return batch
}

// abandon resolves what one publisher has waiting.
func (x *schedule) abandon(from *publisher, err error) {
	x.mu.Lock()
	var pending []*scheduled
	x.waiting = slices.DeleteFunc(x.waiting, func(s *scheduled) bool {
		if s.from == from {
			pending = append(pending, s)
		}
		return s.from == from
	})
	x.mu.Unlock()
	for _, s := range pending {
		s.p.Resolve(err)
	}
}

func (c *Conn) dispatchEnd(err error) {
	for batch := c.scheduled.take(); len(batch) > 0; batch = c.scheduled.take() {
		for _, s := range batch {
			s.p.Resolve(err)
		}
	}
}

// dispatch sends what waits, and ends when nothing does. Whatever gathers while
// it asks the broker shares the next question.
func (c *Conn) dispatch() {
	for batch := c.scheduled.take(); len(batch) > 0; batch = c.scheduled.take() {
		missing := c.missingExchanges(batch)
		var units uint64
		anew := false
		for _, s := range batch {
			units |= s.units
			anew = anew || s.again
		}
		err := c.ensureLevels(c.ctx, units, anew)
		if err == nil {
			err = c.ensureDue(c.ctx, anew)
		}
		if errors.Is(err, driver.ErrClosed) || errors.Is(err, context.Canceled) {
			err = driver.ErrUnconfirmed
		}
		for _, s := range batch {
			failed := missing[s.from.exchange]
			if failed == nil {
				failed = err
			}
			switch {
			case s.p.Resolved():
			case failed != nil:
				s.p.Resolve(failed)
			default:
				s.send()
			}
		}
	}
}

// missingExchanges says of each exchange of a batch that cannot be published to
// why not.
func (c *Conn) missingExchanges(batch []*scheduled) map[string]error {
	found := map[string]error{}
	for _, s := range batch {
		exchange := s.from.exchange
		if _, asked := found[exchange]; asked || s.p.Resolved() {
			continue
		}
		if _, always := routing.Predeclared(exchange); exchange == "" || always {
			continue
		}
		err := c.do(c.ctx, func(ch *channel) error {
			return ch.ExchangeDeclarePassive(exchange, "direct", true, false, false, false, nil)
		})
		if errors.Is(err, driver.ErrClosed) || errors.Is(err, context.Canceled) {
			err = driver.ErrUnconfirmed
		}
		found[exchange] = err
	}
	return found
}

// send puts the copy into the outbox.
func (s *scheduled) send() {
	m := s.m
	level := addLevels(m.Header, s.units)
	p := &driver.Publishing{Message: &m, ID: s.p.ID, Owner: s}
	from := &publisher{out: s.c.out, own: true, exchange: level, parent: s.from}
	from.Publish(s.c.ctx, []*driver.Publishing{p}, false)
}

// Resolved hands the outcome of the copy on. Where the levels were not there,
// since somebody has deleted them, they are made anew.
func (s *scheduled) Resolved(p *driver.Publishing) {
	err := p.Err()
	if (errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrUnroutable)) && !s.again {
		s.again = true
		s.c.schedule(s)
		return
	}
	if errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrUnroutable) {
		err = fmt.Errorf("%w: the delay levels %s* are being deleted: %v", driver.ErrUnconfirmed, delayPrefix, err)
	}
	s.p.Resolve(err)
}

// ensureDue declares where delayed messages come to when they are due, and sees
// to it that this connection moves them on.
func (c *Conn) ensureDue(ctx context.Context, anew bool) error {
	d := &c.delays
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if anew || !d.due {
		err := c.do(ctx, func(ch *channel) error {
			form, err := formOf(routing.Queue{Name: dueQueue, Type: typeQuorum}, c.version)
			if err != nil {
				return err
			}
			if err := form.declare(ch, dueQueue); err != nil {
				return err
			}
			return ch.QueueBind(dueQueue, "", exchangeOut, false, amqp091.Table{"x-match": "all", headerDue: true})
		})
		if err != nil {
			return delayError(err)
		}
		d.due = true
	}
	c.startMover()
	return nil
}

// ensureUnroutable declares where messages go that nothing takes when they are
// due. The queue is like any other, and may stand as somebody wants it.
func (c *Conn) ensureUnroutable(ctx context.Context) error {
	return c.do(ctx, func(ch *channel) error {
		if err := ch.ExchangeDeclare(exchangeLost, "fanout", true, false, false, false, nil); err != nil {
			return err
		}
		form, err := formOf(routing.Queue{Name: unroutable}, c.version)
		if err == nil {
			err = form.declare(ch, unroutable)
		}
		if errors.Is(wrap(err), driver.ErrConflict) {
			err = ch.reopen()
		}
		if err != nil {
			return err
		}
		return ch.QueueBind(unroutable, "", exchangeLost, false, nil)
	})
}
