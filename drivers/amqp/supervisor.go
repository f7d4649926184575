package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// link is one supervised connection: made again, for as long as it takes,
// whenever it is lost. Its goroutine is the only one that dials.
type link struct {
	c       *Conn
	role    string
	prepare func(*wire)
	restore func(*amqp091.Connection, *wire) // before anybody has the connection
	onUp    func(*amqp091.Connection, *wire) // on the link's goroutine

	// Of the link's goroutine.
	next  int // the host to try first
	pause pause
	sifts bool // a message that amqp091 does not read has ended the connection

	mu      sync.Mutex
	conn    *amqp091.Connection // nil while down
	wire    *wire
	up      chan struct{} // closed while conn is not nil
	blocked bool
}

func newLink(c *Conn, role string) *link {
	return &link{c: c, role: role, up: make(chan struct{})}
}

// open tries each host once.
func (l *link) open(ctx context.Context) error {
	var errs []error
	addrs := l.c.settings.addrs
	for i := range addrs {
		addr := addrs[(l.next+i)%len(addrs)]
		var w *wire
		conn, p, err := l.c.settings.dial(ctx, addr, l.role, func(made *wire) {
			w = made
			if l.sifts {
				made.from = newSieve(made.conn)
			}
			if l.prepare != nil {
				l.prepare(made)
			}
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", addr, err))
			if ctx.Err() != nil {
				break
			}
			continue
		}
		l.next = (l.next + i) % len(addrs)
		return l.start(conn, w, p)
	}
	return errors.Join(errs...)
}

func (l *link) start(conn *amqp091.Connection, w *wire, p *patient) error {
	if l.restore != nil {
		l.restore(conn, w)
	}
	closed := conn.NotifyClose(make(chan *amqp091.Error, 1))
	blocked := conn.NotifyBlocked(make(chan amqp091.Blocking, 16))
	l.mu.Lock()
	if l.c.ctx.Err() != nil { // Close has not seen this one
		l.mu.Unlock()
		w.cut()
		conn.Close()
		return driver.ErrClosed
	}
	l.conn, l.wire, l.blocked = conn, w, false
	close(l.up)
	l.mu.Unlock()
	if l.onUp != nil {
		l.onUp(conn, w)
	}
	l.c.tasks.Go(func() { l.run(p, closed, blocked) })
	return nil
}

// run watches one connection until it ends, and then brings about the next.
func (l *link) run(p *patient, closed chan *amqp091.Error, blocked chan amqp091.Blocking) {
	var cause error
	began := time.Now()
	for cause == nil {
		select {
		case b, ok := <-blocked:
			if !ok {
				blocked = nil
				continue
			}
			p.blocked.Store(b.Active)
			l.mu.Lock()
			l.blocked = b.Active
			l.mu.Unlock()
			if b.Active {
				l.c.report(fmt.Errorf("the broker takes no publishes for now: %s", b.Reason))
			} else {
				l.c.report(nil)
			}
		case e := <-closed:
			cause = errors.New("connection closed")
			if e != nil {
				cause = e
				l.sift(e)
			}
		}
	}
	l.mu.Lock()
	l.conn.Close() // nothing, or the end of its goroutines
	l.conn, l.wire, l.blocked, l.up = nil, nil, false, make(chan struct{})
	l.mu.Unlock()
	if l.c.ctx.Err() != nil {
		return
	}
	l.c.delays.forget()
	l.c.restoring.lose()
	l.c.cfg.Logger.Warn("polymq: connection lost", "scheme", "amqp", "role", l.role, "error", cause)
	l.c.report(wrap(cause))
	l.pause.lost(time.Since(began))
	if l.keepOpening() {
		l.c.declared.Back()
		l.c.cfg.Logger.Info("polymq: connection is back", "scheme", "amqp", "role", l.role)
		l.c.report(nil)
	}
}

// sift has the next connections read through a sieve where this one ended on what
// amqp091 does not read: it would come again.
func (l *link) sift(e *amqp091.Error) {
	if l.sifts || e.Server || e.Reason != amqp091.ErrSyntax.Error() {
		return
	}
	l.sifts = true
	l.c.cfg.Logger.Error("polymq: another program's message has headers that AMQP clients do not read; from now on it comes without them, and "+headerUnread+" names them", "scheme", "amqp", "role", l.role)
}

// keepOpening opens the connection, however long that takes; false after Close.
func (l *link) keepOpening() bool {
	for first := true; ; first = false {
		select {
		case <-time.After(l.pause.take()):
		case <-l.c.ctx.Done():
			return false
		}
		err := l.open(l.c.ctx)
		if err == nil {
			return true
		}
		if l.c.ctx.Err() != nil {
			return false
		}
		if first {
			l.c.cfg.Logger.Warn("polymq: cannot connect yet", "scheme", "amqp", "role", l.role, "error", err)
		}
		l.c.report(err)
	}
}

// get waits for the connection until ctx ends.
func (l *link) get(ctx context.Context) (*amqp091.Connection, error) {
	for {
		l.mu.Lock()
		conn, up := l.conn, l.up
		l.mu.Unlock()
		if conn != nil && !conn.IsClosed() {
			return conn, nil
		}
		if conn != nil {
			up = nil // it has just been lost; the supervisor is about to notice
		}
		select {
		case <-up:
		case <-l.c.ctx.Done():
			return nil, driver.ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// close ends the connection, in order while ctx lasts.
func (l *link) close(ctx context.Context) {
	l.mu.Lock()
	conn, w := l.conn, l.wire
	l.mu.Unlock()
	if conn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	defer context.AfterFunc(ctx, w.cut)()
	conn.Close()
}

// breakOff closes the socket of conn, if that is still the link's: what waits
// for an answer learns that none will come.
func (l *link) breakOff(conn *amqp091.Connection) {
	l.mu.Lock()
	w := l.wire
	if l.conn != conn {
		w = nil
	}
	l.mu.Unlock()
	if w != nil {
		w.cut()
	}
}

func (l *link) state() driver.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.conn == nil:
		return driver.Disconnected
	case l.blocked:
		return driver.Blocked
	}
	return driver.Connected
}

// report tells Config.OnState when the connection's state has changed. Calls
// come from several goroutines and reach OnState one at a time, in order.
func (c *Conn) report(err error) {
	state := c.publish.state()
	switch {
	case c.ctx.Err() != nil:
		return // that it ends is no news to who ended it
	case c.consume.state() == driver.Disconnected:
		state = driver.Disconnected
	}
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	if state == c.lastState {
		return
	}
	c.lastState = state
	c.changes = append(c.changes, change{state, err})
	if c.telling {
		return
	}
	c.telling = true
	for len(c.changes) > 0 {
		next := c.changes[0]
		c.changes = c.changes[1:]
		c.stateMu.Unlock()
		c.cfg.OnState(next.state, next.err)
		c.stateMu.Lock()
	}
	c.telling = false
}

type change struct {
	state driver.State
	err   error
}
