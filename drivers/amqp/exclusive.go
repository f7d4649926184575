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

// exclusives are the exclusive queues that this connection has declared. The
// broker deletes them with the AMQP connection that they were declared on; on
// the next one they are made anew, empty, with their bindings, before anything
// else is done with them.
type exclusives struct {
	mu     sync.Mutex
	queues map[string]*exclusive
}

type exclusive struct {
	name string
	form queueForm
	turn chan struct{} // cap 1: held while it is made anew or deleted

	// Guarded by the mutex of exclusives.
	conn      *amqp091.Connection // the one that it stands on
	bindings  []routing.Binding
	consumers int // of this connection
}

// remakeTime is for how long a queue is made anew against the answer that
// another connection has it: it is the lost one's until the broker has noticed
// that loss, by missing heartbeats.
func (c *Conn) remakeTime() time.Duration { return 3*c.settings.heartbeat + 10*time.Second }

// add takes in a queue that was declared on conn.
func (x *exclusives) add(conn *amqp091.Connection, name string, form queueForm) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e := x.queues[name]; e != nil {
		e.conn = conn
		return
	}
	x.queues[name] = &exclusive{name: name, form: form, turn: make(chan struct{}, 1), conn: conn}
}

func (x *exclusives) get(name string) *exclusive {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.queues[name]
}

// bound takes in a binding that was made.
func (x *exclusives) bound(b routing.Binding) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.queues[b.Queue]
	if e != nil && !slices.ContainsFunc(e.bindings, func(o routing.Binding) bool { return sameBinding(o, b) }) {
		e.bindings = append(e.bindings, b)
	}
}

// unbound drops bindings that were removed.
func (x *exclusives) unbound(gone func(routing.Binding) bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.queues {
		e.bindings = slices.DeleteFunc(slices.Clone(e.bindings), gone)
	}
}

// hold keeps a queue from being made anew until release, which says whether it
// was deleted.
func (x *exclusives) hold(ctx context.Context, name string) (release func(deleted bool), err error) {
	e := x.get(name)
	if e == nil {
		return func(bool) {}, nil
	}
	if err := e.lock(ctx); err != nil {
		return nil, err
	}
	return func(deleted bool) {
		if deleted {
			x.drop(e)
		}
		<-e.turn
	}, nil
}

func (e *exclusive) lock(ctx context.Context) error {
	select {
	case e.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (x *exclusives) drop(e *exclusive) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.queues[e.name] == e {
		delete(x.queues, e.name)
	}
}

// dropEnded drops a queue that has ended by itself and is about to be declared,
// maybe as another: its bindings have ended with it.
func (x *exclusives) dropEnded(ch *channel, name string) error {
	e := x.get(name)
	if e == nil {
		return nil
	}
	_, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
	if err == nil || lost(err) {
		return err
	}
	if missing(err) {
		x.drop(e)
	}
	return ch.reopen()
}

// joined counts a subscriber; nil where its queue is none of them.
func (x *exclusives) joined(name string) *exclusive {
	x.mu.Lock()
	defer x.mu.Unlock()
	e := x.queues[name]
	if e != nil {
		e.consumers++
	}
	return e
}

// left counts a subscriber out. Where the application has closed it and it was
// the last, an AutoDelete queue is deleted by the broker, and not made anew.
func (x *exclusives) left(e *exclusive, closed bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e.consumers--; e.consumers == 0 && closed && e.form.autoDelete && x.queues[e.name] == e {
		delete(x.queues, e.name)
	}
}

// remake makes all of them anew on a connection that has just come about.
func (c *Conn) remake(conn *amqp091.Connection, _ *wire) {
	x := &c.exclusives
	x.mu.Lock()
	var names []string
	for name := range x.queues {
		names = append(names, name)
	}
	x.mu.Unlock()
	if len(names) == 0 {
		return
	}
	c.tasks.Go(func() {
		for _, name := range names {
			if err := c.ensureExclusive(c.ctx, conn, name); err != nil && lost(err) {
				return // the next connection does it
			}
		}
	})
}

// ensureExclusive makes a queue that is exclusive to this connection stand on
// conn; nothing is to be done for any other queue.
func (c *Conn) ensureExclusive(ctx context.Context, conn *amqp091.Connection, name string) error {
	x := &c.exclusives
	e := x.get(name)
	if e == nil || x.stands(e, conn) {
		return nil
	}
	if err := e.lock(ctx); err != nil {
		return err
	}
	defer func() { <-e.turn }()
	if x.stands(e, conn) {
		return nil
	}
	pause := minPause
	for end := time.Now().Add(c.remakeTime()); ; pause = longer(pause) {
		unbound, err := x.make(e, conn)
		told := wrap(err)
		switch {
		case err == nil:
			c.rebind(unbound, func() []routing.Binding { return x.bindings(e, conn) })
			return nil
		case lost(err):
			return err
		case !errors.Is(told, driver.ErrInUse) || time.Now().After(end):
			x.drop(e)
			c.cfg.Logger.Error("polymq: an exclusive queue could not be made anew", "scheme", "amqp", "queue", name, "error", told)
			return fmt.Errorf("make exclusive queue %q anew: %w", name, err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		case <-c.ctx.Done():
			return driver.ErrClosed
		}
	}
}

// endExclusives deletes them, since newer brokers take a moment after the end of
// the connection.
func (c *Conn) endExclusives(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, share(ctx))
	defer cancel()
	c.consume.mu.Lock()
	conn := c.consume.conn
	c.consume.mu.Unlock()
	x := &c.exclusives
	var names []string
	x.mu.Lock()
	for name, e := range x.queues {
		if e.conn == conn { // else it has ended already
			names = append(names, name)
		}
	}
	x.queues = map[string]*exclusive{}
	x.mu.Unlock()
	if conn == nil || len(names) == 0 {
		return
	}
	done := make(chan struct{})
	c.tasks.Go(func() {
		defer close(done)
		ch := &channel{conn: conn}
		for _, name := range names {
			if ch.reopen() != nil {
				return
			}
			ch.QueueDelete(name, false, false, false)
		}
		if ch.Channel != nil {
			ch.Close()
		}
	})
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// stands reports that nothing is to be made: the queue is there on conn, or was
// forgotten.
func (x *exclusives) stands(e *exclusive, conn *amqp091.Connection) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.queues[e.name] != e || e.conn == conn
}

// bindings are those that a queue is to have; none where conn is not the one that it
// stands on.
func (x *exclusives) bindings(e *exclusive, conn *amqp091.Connection) []routing.Binding {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.queues[e.name] != e || e.conn != conn {
		return nil
	}
	return slices.Clone(e.bindings)
}

// make declares and binds the queue. What some of its bindings lead from may be gone, or
// not be there yet: these it returns.
func (x *exclusives) make(e *exclusive, conn *amqp091.Connection) (unbound []routing.Binding, err error) {
	ch := &channel{conn: conn}
	if err := ch.reopen(); err != nil {
		return nil, err
	}
	defer func() {
		if ch.Channel != nil {
			ch.Close()
		}
	}()
	if err := e.form.declare(ch, e.name); err != nil {
		return nil, err
	}
	x.mu.Lock()
	bindings := slices.Clone(e.bindings)
	x.mu.Unlock()
	for _, b := range bindings {
		err := bind(ch, b)
		if missing(err) {
			unbound = append(unbound, b)
			err = ch.reopen()
		}
		if err != nil {
			return nil, err
		}
	}
	x.mu.Lock()
	e.conn = conn
	x.mu.Unlock()
	return unbound, nil
}
