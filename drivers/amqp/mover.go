package amqp

import (
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// mover publishes what is due in dueQueue to its exchange. Each connection to a
// vhost with that queue has one; the broker shares the messages out. A message
// is acknowledged when every queue has it, or when a copy with a further delay
// is stored: one that cannot be published now holds up no other.
type mover struct {
	c    *Conn
	s    *subscriber
	wake chan struct{} // cap 1

	mu   sync.Mutex
	open map[*moving]struct{}
	turn []*moving // resolved
	end  bool      // nothing is taken any more
}

// moving is one of its messages.
type moving struct {
	of   *mover
	d    *delivery
	m    driver.Message
	back bool // a nacked message, to its queue
	step func(*moving, error)
	p    *driver.Publishing
	late time.Time // when its outcome is not waited for any longer
}

const (
	moverPrefetch = 200
	// moverTime is how long the queues of a message may take to confirm it.
	// One without a leader never does; a second copy is possible then.
	moverTime = 10 * time.Second
	// minTick is how often that is looked at.
	minTick = time.Second
	// A message that was refused is tried again after pauses of one level
	// each, 1.28 s to 41 s.
	firstPause, lastPause = 7, 12
	// dueLook is how often a connection without a mover looks whether others
	// have begun to delay messages in its vhost.
	dueLook = 30 * time.Second
)

// movers is a connection's mover.
type movers struct {
	mu      sync.Mutex
	now     *mover // nil while there is none
	running bool   // there is one, or it is being started
	refused bool   // the user may not
	closed  bool
}

// startMover starts the connection's mover unless it has one; it does not wait.
func (c *Conn) startMover() {
	x := &c.movers
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.running || x.refused || x.closed || c.begin() != nil {
		return
	}
	x.running = true
	go func() {
		defer c.tasks.Done()
		err := c.move()
		x.mu.Lock()
		x.now, x.running = nil, false
		x.refused = errors.Is(err, driver.ErrPermission)
		x.mu.Unlock()
		if err != nil && !errors.Is(err, driver.ErrClosed) && !errors.Is(err, driver.ErrNotFound) && c.ctx.Err() == nil {
			c.cfg.Logger.Warn("polymq: this connection moves no delayed messages; others may", "scheme", "amqp", "queue", dueQueue, "error", err)
		}
	}()
}

// move is the mover's life.
func (c *Conn) move() error {
	s, err := c.subscriber(c.ctx, driver.SubscriberConfig{Queue: dueQueue, Prefetch: moverPrefetch}, true)
	if err != nil {
		return err
	}
	m := &mover{c: c, s: s, wake: make(chan struct{}, 1), open: map[*moving]struct{}{}}
	c.movers.mu.Lock()
	c.movers.now = m
	c.movers.mu.Unlock()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		m.finish()
	}()
	buf := make([]*driver.Delivery, 64)
	for {
		n, receiveErr := s.Receive(c.ctx, buf)
		if receiveErr != nil {
			err = receiveErr
			break
		}
		for _, d := range buf[:n] {
			m.take(d.Tag.(*delivery))
		}
	}
	m.mu.Lock()
	m.end = true
	m.mu.Unlock()
	signal(m.wake)
	<-finished
	s.Close(c.ctx)
	return err
}

// stopMover ends the mover in order: what it has published it acknowledges, as
// far as ctx lasts, so that it does not come twice.
func (c *Conn) stopMover(ctx context.Context) {
	x := &c.movers
	x.mu.Lock()
	x.closed = true
	m := x.now
	x.mu.Unlock()
	if m == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, share(ctx))
	defer cancel()
	m.s.Drain(ctx)
	for ctx.Err() == nil {
		m.mu.Lock()
		none := len(m.open) == 0
		m.mu.Unlock()
		if none {
			return
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// take begins to move a delivery.
func (m *mover) take(d *delivery) {
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
	x := &moving{of: m, d: d, m: d.Message}
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
	h := make(driver.Header, len(m.Header))
	for k, v := range m.Header {
		if !strings.HasPrefix(k, prefixOwn) || strings.HasPrefix(k, prefixEscaped) || k == headerDeath || k == headerOwnCount || k == headerOwnAcquired {
			h[k] = v
		}
	}
	if ms, ok := x.m.Header[headerTTL].(int64); ok {
		m.TTL = time.Duration(ms) * time.Millisecond
	}
	m.Header = h
	if queue, ok := x.m.Header[headerBack].(string); ok {
		x.back = true
		exchange = exchangeIn
		for _, k := range [...]string{headerExchange, headerAttempts, headerUser, headerFirst, headerLast} {
			if v, ok := x.m.Header[k]; ok {
				h[k] = v
			}
		}
		h[headerQueue] = queue
	} else {
		putEnd(h, prefixFirst, x.m.Header[headerFirst])
		if t, ok := x.m.Header[headerLast].(map[string]any); ok {
			for field, v := range t {
				h[prefixLast+field] = v
			}
		}
		if bcc, ok := x.m.Header[headerBCC]; ok {
			h["BCC"] = bcc
		}
		if own := x.of.c.settings.user; x.m.Header[headerUser] == own {
			m.UserID = own
		}
	}
	x.publish(exchange, m, (*moving).routed)
}

// routed hears how that went.
func (x *moving) routed(err error) {
	nowhere := errors.Is(err, driver.ErrUnroutable) || errors.Is(err, driver.ErrNotFound)
	switch {
	case err == nil:
		x.settle(driver.Ack)
	case nowhere && x.back:
		// Its queue is gone: the relay keeps it until it is there again, without
		// its TTL, or it goes where what has no relay goes.
		m := x.m
		m.Header = cloneWithout(x.m.Header, headerDue, headerBack, headerTTL)
		m.Header[headerQueue] = x.m.Header[headerBack]
		x.publish(exchangeOut, m, (*moving).stored)
	case nowhere:
		x.publish(exchangeLost, x.m, (*moving).lost)
	default:
		x.retry(err)
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
		c.cfg.Logger.Warn("polymq: a delayed message that no queue takes has nowhere to go and is tried again", "scheme", "amqp", "queue", unroutable, "error", err)
		x.retry(err)
		return
	}
	x.publish(exchangeLost, x.m, (*moving).stored)
}

// retry puts the message by.
func (x *moving) retry(err error) {
	tries, _ := x.m.Header[headerTry].(int64)
	if tries == 0 {
		x.of.c.cfg.Logger.Warn("polymq: a delayed message could not be published and is tried again", "scheme", "amqp", "exchange", x.m.Header[headerExchange], "key", x.m.Key, "error", err)
	}
	x.m.Header = cloneWithout(x.m.Header)
	x.m.Header[headerTry] = tries + 1
	x.postpone(1 << min(firstPause+tries, lastPause))
}

// postpone stores a copy that comes again.
func (x *moving) postpone(units uint64) {
	s := &scheduled{m: x.m, units: units}
	s.m.Header = cloneWithout(x.m.Header)
	s.limit()
	c := x.of.c
	if err := c.ensureLevels(c.ctx, s.units, false); err != nil {
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
		if c.ensureLevels(c.ctx, 1<<firstPause, true) == nil {
			c.ensureDue(c.ctx, true)
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
	x.step, x.p, x.late = then, p, time.Now().Add(moverTime)
	x.of.mu.Unlock()
	from := &publisher{out: x.of.c.out, own: true, exchange: exchange}
	from.Publish(x.of.c.ctx, []*driver.Publishing{p}, false)
}

// Resolved leaves the rest to the mover's goroutine.
func (x *moving) Resolved(*driver.Publishing) {
	x.of.mu.Lock()
	x.of.turn = append(x.of.turn, x)
	x.of.mu.Unlock()
	signal(x.of.wake)
}

// finish takes the next step of what is resolved, and gives up what takes too
// long, until the mover ends.
func (m *mover) finish() {
	tick := time.NewTicker(minTick)
	defer tick.Stop()
	for {
		var now time.Time
		select {
		case <-m.wake:
		case now = <-tick.C:
		case <-m.c.ctx.Done():
			return
		}
		m.mu.Lock()
		turn := m.turn
		m.turn = nil
		var late []*moving
		for x := range m.open {
			if !now.IsZero() && now.After(x.late) {
				late = append(late, x)
			}
		}
		done := m.end && len(m.open) == 0
		m.mu.Unlock()
		for _, x := range late {
			if x.p != nil {
				x.p.Resolve(driver.ErrUnconfirmed)
			} else {
				x.settle(driver.Nack)
			}
		}
		for _, x := range turn {
			x.step(x, x.p.Err())
		}
		if done {
			return
		}
	}
}

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

// headerProbe marks a message that asks whether dueQueue stands.
const headerProbe = "polymq-probe"

// lookForDue starts the mover of a connection in whose vhost others delay
// messages. It asks by a message that comes back where there is no queue: a
// declaration would leave an error in the broker's log each time.
func (c *Conn) lookForDue() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			return
		}
		timer.Reset(dueLook)
		c.movers.mu.Lock()
		idle := !c.movers.running && !c.movers.refused
		c.movers.mu.Unlock()
		if !idle || c.publish.state() != driver.Connected {
			continue
		}
		there := false
		err := c.once(c.ctx, c.publish, func(ch *channel) error {
			returns := ch.NotifyReturn(make(chan amqp091.Return, 1))
			err := ch.Publish("", dueQueue, true, false, amqp091.Publishing{Headers: amqp091.Table{headerProbe: true}, Expiration: "0"})
			if err == nil {
				err = ch.Qos(1, 0, false) // the return comes before its answer
			}
			there = err == nil && len(returns) == 0
			return err
		})
		if errors.Is(wrap(err), driver.ErrPermission) {
			return
		}
		if err == nil && there {
			c.startMover()
		}
	}
}
