package redis

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	group = "polymq"
	// ackDelay is how long a settlement waits for a fetch to ride along with.
	ackDelay = 2 * time.Millisecond
	// closeTimeout bounds how long the end of a subscription waits for a
	// connection to come back.
	closeTimeout = 5 * time.Second
	// maxSettle bounds the settlements of one call, for Lua's unpack.
	maxSettle = 2000
)

// hold is a delivery as the consumer keeps it.
type hold struct {
	emulate.Delivery
	id         string
	count      int    // the entry's delivery count
	life       uint64 // of the consumer that it was delivered to
	until      time.Time
	prev, next *hold
}

// turn is a mutex whose waiting ends with a ctx.
type turn chan struct{}

func (t turn) lock(ctx context.Context) error {
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) unlock() { <-t }

// consumer is a member of the queue's group. The group knows it by a name under
// which a lease runs; once the lease has run out, others strike the name and
// take what it held, and the consumer begins a new life under a new name.
type consumer struct {
	s       *store
	q       *emulate.Queue
	key     string
	wakeKey string // of the stream that tells of what was given back
	fns     *functions
	in      *emulate.Inbox

	base    string
	stopped chan struct{} // closed by halt
	ended   chan struct{} // the reader has returned

	stopOnce sync.Once
	kick     chan struct{} // cap 1: something to settle
	ctx      context.Context
	cancel   context.CancelFunc

	socketMu sync.Mutex // held to change socket, and by halt
	socket   *socket    // the reader's
	ahead    *request   // the reader's: sent while the answer to the one before was being read

	// call is held around every call that names the consumer, blocking reads and
	// extend excepted, so that a new name is not taken under one.
	call   turn
	name   string // mu is held to change it, too
	tail   int    // names used
	unsure bool   // the server may know it by the next name already

	mu       sync.Mutex
	life     uint64
	until    time.Time // the lease is not over before; zero: it has not joined under the name
	renewing bool      // by stay
	todo     []settlement
	taken    uint64 // how often some of todo was taken
	taking   bool   // the reader does before it waits again: nobody else need
	holds    hold   // ring, oldest first
	gone     bool   // the queue
}

func (s *store) Consume(ctx context.Context, q *emulate.Queue, in *emulate.Inbox) (emulate.Consumer, error) {
	h := q.Handle.(*queue)
	c := &consumer{
		s: s, q: q, key: h.key, wakeKey: h.key + ":wake", fns: h.fns, in: in,
		base:    random(6),
		call:    make(turn, 1),
		stopped: make(chan struct{}),
		ended:   make(chan struct{}),
		kick:    make(chan struct{}, 1),
	}
	c.holds.prev, c.holds.next = &c.holds, &c.holds
	c.rename()
	sent := time.Now()
	v, err := s.fcall(ctx, c.fns.join, c.key, c.name, c.lease(), "", in.Prefetch())
	if err != nil {
		return nil, err
	}
	if v != int64(1) {
		return nil, emulate.ErrGone
	}
	c.renewed(c.name, sent)
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed.Load() {
		c.cancel()
		return nil, driver.ErrClosed
	}
	s.consumers.Store(c, nil)
	s.wg.Go(c.read)
	s.wg.Go(c.flush)
	return c, nil
}

// rules reports whether the queue has any.
func (c *consumer) rules() bool { return c.fns == rulesFunctions }

func (c *consumer) lease() string { return strconv.FormatInt(c.s.cfg.lease.Milliseconds(), 10) }

// rename takes another name; the caller holds call and mu, or is alone.
func (c *consumer) rename() {
	c.tail++
	c.name = c.base + "-" + strconv.Itoa(c.tail)
}

// verdict heeds what the server says of the consumer: -1, it was struck; 0, the
// queue is gone. The caller holds call.
func (c *consumer) verdict(v any) (ok bool) {
	switch v {
	case int64(-1):
		c.die()
	case int64(0):
		c.queueGone()
	default:
		return true
	}
	return false
}

// die ends a life: all holds are lost.
func (c *consumer) die() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lose()
	c.rename()
	c.until = time.Time{}
}

// current is the life; who deletes the queue ends it at any time.
func (c *consumer) current() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.life
}

// lose ends all holds; the caller holds mu.
func (c *consumer) lose() {
	c.life++
	for c.holds.next != &c.holds {
		c.holds.next.unlink()
	}
	c.todo = nil
}

// queueGone ends the last life.
func (c *consumer) queueGone() {
	c.mu.Lock()
	c.gone = true
	c.lose()
	c.mu.Unlock()
	c.in.Fail(driver.ErrNotFound)
}

// Drain stops the reader and gives back what the application has not seen.
func (c *consumer) Drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	if err := c.halt(ctx); err != nil {
		return err
	}
	ds := c.in.Prefetched()
	c.mu.Lock()
	for _, d := range ds {
		if h := d.Ref.(*hold); h.next != nil {
			c.add(h, false, unseen)
		}
	}
	c.mu.Unlock()
	if err := c.sendSettled(ctx); err != nil {
		c.wake() // it goes on
		return err
	}
	if !c.rules() {
		return nil
	}
	return c.withdraw(ctx)
}

// withdraw lets go of what the queue's rules give to those who take messages.
func (c *consumer) withdraw(ctx context.Context) error {
	if err := c.named(ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	_, err := c.s.fcall(ctx, c.fns.withdraw, c.key, c.name)
	return err
}

// halt ends the reader.
func (c *consumer) halt(ctx context.Context) error {
	c.stopOnce.Do(func() { close(c.stopped) })
	for pause := time.Millisecond; ; pause = min(2*pause, 20*time.Millisecond) {
		// A read that blocks is ended by the server, so that it takes nothing more.
		c.socketMu.Lock()
		k := c.socket
		c.socketMu.Unlock()
		if k != nil {
			_, _ = c.s.await(ctx, func() (any, error) { return k.node.client.Do(ctx, "CLIENT", "UNBLOCK", k.id).Result() })
		}
		select {
		case <-c.ended:
			return nil
		case <-time.After(pause): // it may have begun to block just now
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (c *consumer) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	defer c.s.consumers.Delete(c)
	if err := c.halt(ctx); err != nil {
		c.cancel()
		return err
	}
	defer c.cancel()
	err := c.sendSettled(ctx)
	_, handed := c.in.Drain()
	if e := c.named(ctx); e != nil {
		return errors.Join(err, e)
	}
	defer c.call.unlock()
	c.mu.Lock()
	gone, life := c.gone, c.life
	c.mu.Unlock()
	if gone {
		return nil
	}
	args := []any{c.name}
	for _, d := range handed {
		if h := d.Ref.(*hold); h.life == life {
			args = append(args, h.id)
		}
	}
	if _, e := c.s.fcall(ctx, c.fns.leave, c.key, args...); e != nil {
		return errors.Join(err, e)
	}
	return err
}
