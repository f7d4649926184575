package amqp

import (
	"context"
	"errors"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// mover publishes what is due in dueQueue to its exchange. Each Conn to a vhost
// with that queue has one; the broker shares the messages out. A message is
// acknowledged when every queue has it, or when a copy with a further delay is
// stored: one that cannot be published now holds up no other.
//
// It consumes and publishes on a connection of its own. What others have delayed
// can close a channel, or have the broker read no further, and must not do so to
// the application's publishers.
type mover struct {
	c    *Conn
	s    *subscriber
	out  *outbox
	wake chan struct{} // cap 1

	mu   sync.Mutex
	open map[*moving]struct{}
	turn []*moving // resolved
	shut shut
	late int  // what was not confirmed in time on this connection
	end  bool // nothing is taken any more
}

const (
	moverPrefetch = 200
	// moverTime is how long the queues of a message may take to confirm it.
	// One without a leader never does; a second copy is possible then.
	moverTime = 10 * time.Second
	// moverLate is how many such a connection outlives: with 32 unconfirmed for
	// one queue, RabbitMQ begins to read no further from the connection.
	moverLate = 16
	// minTick is how often that is looked at.
	minTick = time.Second
	// A message that was refused is tried again after pauses of one level
	// each, 1.28 s to 41 s, some times after each: where one mover may not
	// publish it and another may, the broker gives it to either.
	firstPause, lastPause = 7, 12
	pauseTries            = 3
	pauseLevels           = 1<<(lastPause+1) - 1<<firstPause
	// dueLook is how often a connection without a mover looks whether others
	// have begun to delay messages in its vhost.
	dueLook = 30 * time.Second
)

// movers is a Conn's mover, and the connection that was made with the first.
type movers struct {
	mu      sync.Mutex
	now     *mover // nil while there is none
	running bool   // there is one, or it is being started
	refused bool   // the user may not
	closed  bool
	link    *link
	out     *outbox
}

// moverLink is the movers' connection, which may be still to come about.
func (c *Conn) moverLink() (*link, *outbox) {
	x := &c.movers
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.link != nil {
		return x.link, x.out
	}
	l, out := newLink(c, "delays"), newOutbox(c)
	out.prompt = true
	l.prepare = out.prepare
	l.onUp = out.connected
	l.restore = func(*amqp091.Connection, *wire) { // before anything comes by the new one
		x.mu.Lock()
		m := x.now
		x.mu.Unlock()
		if m != nil {
			m.lost()
		}
	}
	x.link, x.out = l, out
	c.tasks.Go(out.run)
	c.tasks.Go(func() { l.keepOpening() })
	return l, out
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
		for errors.Is(err, driver.ErrNotFound) && c.ensureDueAgain() {
			err = c.move()
		}
		refused, until := errors.Is(err, driver.ErrPermission), ""
		if refused {
			until = " until it is opened anew"
		}
		x.mu.Lock()
		x.now, x.running, x.refused = nil, false, refused
		x.mu.Unlock()
		if !errors.Is(err, driver.ErrClosed) && !errors.Is(err, driver.ErrNotFound) && c.ctx.Err() == nil {
			c.cfg.Logger.Warn("polymq: this connection moves no delayed messages"+until+"; others may", "scheme", "amqp", "queue", dueQueue, "error", err)
		}
	}()
}

// move is the mover's life; it returns why that ended. A user who may not make
// what a message is put by in is no mover: it would have to keep the message.
func (c *Conn) move() error {
	if err := c.ensureLevels(c.ctx, pauseLevels); err != nil {
		return err
	}
	l, out := c.moverLink()
	s, err := c.subscriber(c.ctx, l, driver.SubscriberConfig{Queue: dueQueue, Prefetch: moverPrefetch}, true)
	if err != nil {
		return err
	}
	m := &mover{c: c, s: s, out: out, wake: make(chan struct{}, 1), open: map[*moving]struct{}{}, shut: shut{}}
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
	if m == nil || m.s.link.state() == driver.Disconnected {
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

// close ends the movers' connection.
func (x *movers) close(ctx context.Context) {
	x.mu.Lock()
	l, out := x.link, x.out
	x.mu.Unlock()
	if l != nil {
		out.fail(driver.ErrUnconfirmed)
		l.close(ctx)
	}
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
		if !now.IsZero() {
			m.giveUp(now)
		}
		m.mu.Lock()
		turn := m.turn
		m.turn = nil
		done := m.end && len(m.open) == 0
		m.mu.Unlock()
		for _, x := range turn {
			if m.c.ctx.Err() != nil {
				return // it failed since the Conn ends
			}
			x.step(x, x.p.Err())
		}
		if done {
			return
		}
	}
}

// giveUp ends the wait for what has taken too long. The connection goes when
// that was too much.
func (m *mover) giveUp(now time.Time) {
	state := m.s.link.state()
	var back, late []*moving
	m.mu.Lock()
	m.shut.prune(now)
	for x := range m.open {
		switch {
		case now.Before(x.late):
		case x.p == nil:
			back = append(back, x)
		case state != driver.Connected:
			x.late = now.Add(moverTime)
		default:
			x.overdue = true
			late = append(late, x)
		}
	}
	m.late += len(late)
	leave := m.late >= moverLate
	m.mu.Unlock()
	for _, x := range back {
		x.settle(driver.Nack)
	}
	for _, x := range late {
		x.p.Resolve(driver.ErrUnconfirmed)
	}
	if leave {
		m.s.breakOff()
	}
}

// lost forgets what came by a connection that has ended: it comes again.
func (m *mover) lost() {
	m.mu.Lock()
	var pending []*driver.Publishing
	for x := range m.open {
		if x.p != nil {
			pending = append(pending, x.p)
		}
	}
	clear(m.open)
	m.turn, m.late = nil, 0
	m.mu.Unlock()
	for _, p := range pending {
		p.Resolve(driver.ErrUnconfirmed) // lest the outbox sends it again
	}
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
