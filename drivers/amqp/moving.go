package amqp

import (
	"errors"
	"strings"
	"time"

	"github.com/polymq/polymq/driver"
)

// moving is one of a mover's messages.
type moving struct {
	of   *mover
	d    *delivery
	m    driver.Message
	back bool // to a queue, whatever the bindings
	way  way
	// bound says that the queue was bound again.
	bound bool
	// The rest is guarded by the mover's mutex.
	step    func(*moving, error)
	p       *driver.Publishing
	late    time.Time // when its outcome is not waited for any longer
	overdue bool      // nor was it
}

// take begins to move a delivery.
func (m *mover) take(d *delivery) {
	if m.s.Extend(m.c.ctx, &d.Delivery) != nil {
		return // its connection has ended
	}
	h := d.Message.Header
	if d.Message.UserID != "" {
		h[headerUser], d.Message.UserID = d.Message.UserID, "" // the broker takes only this connection's own
	}
	delete(h, headerReturn)
	delete(h, headerXDeath)
	takeEnd(h, prefixFirst)
	takeEnd(h, prefixLast)
	delete(h, headerDelivered)
	delete(h, headerAcquired)
	x := &moving{of: m, d: d, m: d.Message, late: time.Now().Add(moverTime)}
	m.mu.Lock()
	m.open[x] = struct{}{}
	m.mu.Unlock()
	exchange, known := h[headerExchange].(string)
	rest, long := h[headerRest].(int64)
	switch {
	case h[headerProbe] != nil:
		x.settle(driver.Ack)
	case !known || h[headerDue] != true: // not a message of polymq's: kept for somebody to look at
		x.publish(goneName, x.m, (*moving).stored)
	case long && rest > 0:
		delete(h, headerRest)
		x.postpone(uint64(rest))
	default:
		x.route(exchange)
	}
}

// route publishes the message as it was given.
func (x *moving) route(exchange string) {
	m := x.m
	x.way.key = m.Key
	h := make(driver.Header, len(m.Header))
	for k, v := range m.Header {
		if !strings.HasPrefix(k, prefixOwn) || strings.HasPrefix(k, prefixEscaped) || k == headerDeath || k == headerOwnCount || k == headerOwnAcquired {
			h[k] = v
		}
	}
	if ms, ok := x.m.Header[headerTTL].(int64); ok {
		m.TTL = time.Duration(ms) * time.Millisecond
	}
	m.Header, m.Priority = h, x.priority()
	if queue, ok := x.m.Header[headerBack].(string); ok {
		x.back = true
		exchange, x.way.key = exchangeIn, queue
		for _, k := range [...]string{headerExchange, headerAttempts, headerUser, headerFirst, headerLast} {
			if v, ok := x.m.Header[k]; ok {
				h[k] = v
			}
		}
		h[headerQueue] = queue
	} else {
		putEnd(h, prefixFirst, x.m.Header[headerFirst], true)
		putEnd(h, prefixLast, x.m.Header[headerLast], true)
		if bcc, ok := x.m.Header[headerBCC]; ok {
			h["BCC"] = bcc
		}
		if own := x.of.c.settings.user; x.m.Header[headerUser] == own {
			m.UserID = own
		}
	}
	x.way.exchange = exchange
	x.of.mu.Lock()
	closed := x.of.shut.closed(x.way, time.Now())
	x.of.mu.Unlock()
	if closed {
		x.putBy()
		return
	}
	x.publish(exchange, m, (*moving).routed)
}

// routed hears how that went.
func (x *moving) routed(err error) {
	nowhere := errors.Is(err, driver.ErrUnroutable) || errors.Is(err, driver.ErrNotFound)
	tries, _ := x.m.Header[headerTry].(int64)
	news := tries == 0
	x.of.mu.Lock()
	switch {
	case err == nil || nowhere:
		x.of.shut.worked(x.way)
	case x.overdue || errors.Is(err, driver.ErrPermission):
		news = x.of.shut.failed(x.way, err, time.Now())
	}
	x.of.mu.Unlock()
	switch {
	case err == nil:
		x.settle(driver.Ack)
	case nowhere && x.back:
		queue, c := x.way.key, x.of.c
		if !x.bound && c.bindTarget(queue, bindReturn) == nil {
			x.bound = true // it had been made anew
			x.route(exchangeIn)
			return
		}
		// It is gone: its relay keeps the message until it is there again, without
		// its TTL, or that goes where what has no relay goes.
		m := x.m
		m.Header, m.Priority = cloneWithout(x.m.Header, headerDue, headerBack, headerTTL, headerPriority), x.priority()
		m.Header[headerQueue] = queue
		x.publish(exchangeOut, m, (*moving).stored)
	case nowhere:
		x.publishLost((*moving).lost)
	default:
		if news {
			x.of.c.cfg.Logger.Warn("polymq: a delayed message could not be published and is tried again", "scheme", "amqp", "exchange", x.m.Header[headerExchange], "key", x.m.Key, "error", err)
		}
		x.putBy()
	}
}

// lost hears how it went where nothing takes a message.
func (x *moving) lost(err error) {
	if !errors.Is(err, driver.ErrUnroutable) && !errors.Is(err, driver.ErrNotFound) {
		x.stored(err)
		return
	}
	c := x.of.c
	if err := c.ensureUnroutable(c.ctx); err != nil {
		c.cfg.Logger.Warn("polymq: a delayed message that no queue takes has nowhere to go and is tried again", "scheme", "amqp", "queue", driver.UnroutableQueue, "error", err)
		x.putBy()
		return
	}
	x.publishLost((*moving).stored)
}

// publishLost sends the message to where go those that nothing takes.
func (x *moving) publishLost(then func(*moving, error)) {
	m := x.m
	m.Priority = x.priority()
	x.publish(exchangeLost, m, then)
}

// priority is the message's own.
func (x *moving) priority() uint8 {
	p, _ := x.m.Header[headerPriority].(int64)
	return uint8(min(max(p, 0), 255))
}

// putBy stores a copy that comes after a pause, which grows.
func (x *moving) putBy() {
	tries, _ := x.m.Header[headerTry].(int64)
	x.m.Header = cloneWithout(x.m.Header)
	x.m.Header[headerTry] = tries + 1
	x.postpone(1 << min(firstPause+tries/pauseTries, lastPause))
}

// postpone stores a copy that comes again.
func (x *moving) postpone(units uint64) {
	s := &scheduled{m: x.m, units: units}
	s.m.Header = cloneWithout(x.m.Header)
	s.limit()
	c := x.of.c
	if err := c.ensureLevels(c.ctx, s.units); err != nil {
		x.stored(err)
		return
	}
	level := addLevels(s.m.Header, s.units)
	x.publish(level, s.m, (*moving).stored)
}

// stored hears of a copy with which the message is done.
func (x *moving) stored(err error) {
	if err == nil {
		x.settle(driver.Ack)
		return
	}
	if errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrUnroutable) {
		// The levels were deleted.
		c := x.of.c
		c.delays.forget()
		if c.ensureLevels(c.ctx, pauseLevels) == nil {
			c.ensureDue(c.ctx)
		}
	}
	// Not at once, lest it comes again at once.
	x.of.mu.Lock()
	x.p, x.late = nil, time.Now().Add(minTick)
	x.of.mu.Unlock()
}

// settle ends the message here.
func (x *moving) settle(o driver.Outcome) {
	x.of.s.settle(x.d, o)
	x.of.mu.Lock()
	delete(x.of.open, x)
	x.of.mu.Unlock()
}

// publish sends m, whose header is as it travels and does not change any more,
// and has then called when the outcome is known.
func (x *moving) publish(exchange string, m driver.Message, then func(*moving, error)) {
	p := &driver.Publishing{Message: &m, ID: m.ID, Owner: x}
	x.of.mu.Lock()
	_, open := x.of.open[x]
	x.step, x.p, x.late, x.overdue = then, p, time.Now().Add(moverTime), false
	x.of.mu.Unlock()
	if !open {
		return
	}
	from := &publisher{out: x.of.out, own: true, exchange: exchange}
	from.Publish(x.of.c.ctx, []*driver.Publishing{p}, false)
}

// Resolved leaves the rest to the mover's goroutine.
func (x *moving) Resolved(*driver.Publishing) {
	x.of.mu.Lock()
	if _, open := x.of.open[x]; open {
		x.of.turn = append(x.of.turn, x)
	}
	x.of.mu.Unlock()
	signal(x.of.wake)
}

// cloneWithout is a header as it travels, without its levels and other names.
func cloneWithout(h driver.Header, names ...string) driver.Header {
	clone := make(driver.Header, len(h)+2)
	for k, v := range h {
		clone[k] = v
	}
	for _, name := range names {
		delete(clone, name)
	}
	for k := range clone {
		if strings.HasPrefix(k, headerBit) {
			delete(clone, k)
		}
	}
	return clone
}
