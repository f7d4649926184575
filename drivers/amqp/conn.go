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

// maxMessageBytes stays below the default limit of RabbitMQ 4, so that all
// versions take the same.
const maxMessageBytes = 16 << 20

// Conn implements driver.Conn on two connections: one that publishes, and one
// that consumes and declares, so that a broker which pushes back on publishers
// does not hold up acknowledgements. Where messages are delayed, its mover has a
// third.
type Conn struct {
	settings   settings
	management *management // nil without the URL option
	cfg        driver.Config
	version    version
	features   driver.Features

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	tasks   sync.WaitGroup // every goroutine of the driver's own
	idle    time.Duration  // after which a subscriber looks for its queue
	publish *link
	consume *link
	out     *outbox
	delays  delays

	declared   driver.Declared
	restoring  restoring
	exclusives exclusives
	refusals   refusals
	scheduled  schedule
	movers     movers

	mu          sync.Mutex
	closed      bool
	subscribers map[*subscriber]struct{}

	stateMu   sync.Mutex
	lastState driver.State
	changes   []change
	telling   bool
}

func newConn(ctx context.Context, s settings, m *management, cfg driver.Config) (*Conn, error) {
	c := &Conn{
		settings:    s,
		management:  m,
		cfg:         cfg,
		subscribers: map[*subscriber]struct{}{},
		idle:        firstLook,
	}
	c.delays.turn, c.delays.age = make(chan struct{}, 1), delaysAge
	c.restoring.turn = make(chan struct{}, 1)
	c.restoring.age = settledTime + 2*s.heartbeat // a loss is noticed late
	c.exclusives.queues = map[string]*exclusive{}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.consume = newLink(c, "consume")
	c.publish = newLink(c, "publish")
	c.out = newOutbox(c)
	c.publish.restore, c.consume.restore = c.restore, c.restore
	c.publish.prepare = c.out.prepare
	c.publish.onUp = c.out.connected
	c.consume.onUp = c.remake
	c.tasks.Go(c.out.run)
	for _, l := range []*link{c.consume, c.publish} {
		if err := l.open(ctx); err != nil {
			c.Close(ctx)
			return nil, err
		}
	}
	conn, err := c.consume.get(ctx)
	if err != nil {
		c.Close(ctx)
		return nil, err
	}
	text, _ := conn.Properties["version"].(string)
	c.version = parseVersion(text)
	c.features = featuresOf("RabbitMQ "+text, c.version, m != nil)
	c.tasks.Go(c.lookForDue)
	c.report(nil)
	return c, nil
}

func featuresOf(backend string, v version, management bool) driver.Features {
	f := driver.Features{
		Backend: backend,
		Support: map[driver.Feature]driver.Support{
			driver.Routing:      driver.Native,
			driver.Unroutable:   driver.Native,
			driver.Confirms:     driver.Native,
			driver.Dedup:        driver.Refused,
			driver.Attempts:     driver.Native,
			driver.MaxAttempts:  driver.Native,
			driver.DeadLetter:   driver.Native,
			driver.DelayedNack:  driver.Emulated,
			driver.Delay:        driver.Emulated,
			driver.TTL:          driver.Native,
			driver.Expires:      driver.Native,
			driver.MaxLength:    driver.Native,
			driver.Priority:     driver.Native,
			driver.SingleActive: driver.Native,
			driver.Exclusive:    driver.Native,
			driver.AutoDelete:   driver.Native,
			driver.ReadBack:     driver.Refused,
			driver.Inspect:      driver.Refused,
			driver.Purge:        driver.Native,
		},
		MaxMessageBytes: maxMessageBytes,
		HoldLimit:       30 * time.Minute,
		DelayPrecision:  100 * time.Millisecond, // the unit, and a step for each level
		CountsReturned:  !v.atLeast(4, 3),
		PlainPriorities: v.atLeast(4, 0),
		RefusesLate:     true,
		Requeue:         "last",
	}
	if management {
		f.Support[driver.ReadBack] = driver.Native
		f.Support[driver.Inspect] = driver.Native
	}
	// Before 4.3 quorum queues put back what is nacked in its place only where
	// they have a delivery limit.
	if v.atLeast(4, 3) {
		f.Requeue = "first"
	}
	return f
}

// Features implements driver.Conn.
func (c *Conn) Features() driver.Features { return c.features }

// Native is the *amqp091.Connection that consumes and declares; nil while it
// is lost. It is the driver's to close: its CloseDeadline fails.
func (c *Conn) Native() any {
	c.consume.mu.Lock()
	defer c.consume.mu.Unlock()
	if c.consume.conn == nil {
		return nil
	}
	return c.consume.conn
}

// Health implements driver.Conn: both connections open and close a channel.
func (c *Conn) Health(ctx context.Context) error {
	for _, l := range []*link{c.consume, c.publish} {
		if err := c.once(ctx, l, func(*channel) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// channel is an AMQP channel that is opened anew after an error closed it.
type channel struct {
	conn *amqp091.Connection
	*amqp091.Channel
}

// reopen makes the channel usable after an error.
func (ch *channel) reopen() error {
	if ch.Channel != nil && !ch.IsClosed() {
		return nil
	}
	next, err := ch.conn.Channel()
	if err == nil {
		ch.Channel = next
	}
	return err
}

// do runs f on a channel of its own and repeats it whenever the connection is
// lost under it, until ctx ends; f must be idempotent. amqp091's calls know no
// ctx, so f runs on a goroutine of its own and may outlive do.
func (c *Conn) do(ctx context.Context, f func(*channel) error) error {
	return c.doOn(ctx, c.consume, f)
}

func (c *Conn) doOn(ctx context.Context, l *link, f func(*channel) error) error {
	for {
		err := c.once(ctx, l, f)
		if err == nil || !lost(err) || ctx.Err() != nil || errors.Is(err, driver.ErrClosed) {
			return wrap(err)
		}
		select {
		case <-time.After(minPause):
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-c.ctx.Done():
			return driver.ErrClosed
		}
	}
}

// doWith is do for what concerns the named queues: those of them that are
// exclusive to this connection stand when f begins.
func (c *Conn) doWith(ctx context.Context, queues []string, f func(*channel) error) error {
	return c.do(ctx, func(ch *channel) error {
		for _, name := range queues {
			if err := c.ensureExclusive(ctx, ch.conn, name); err != nil {
				return err
			}
		}
		return f(ch)
	})
}

func (c *Conn) once(ctx context.Context, l *link, f func(*channel) error) error {
	if err := c.begin(); err != nil {
		return err
	}
	conn, err := l.get(ctx)
	if err != nil {
		c.tasks.Done()
		return err
	}
	result := make(chan error, 1)
	go func() {
		defer c.tasks.Done()
		ch := &channel{conn: conn}
		err := ch.reopen()
		if err == nil {
			err = f(ch)
			ch.Close()
		}
		result <- err
	}()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-c.ctx.Done():
		return driver.ErrClosed
	}
}

// begin adds a task; ErrClosed after Close.
func (c *Conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return driver.ErrClosed
	}
	c.tasks.Add(1)
	return nil
}

// Close implements driver.Conn.
func (c *Conn) Close(ctx context.Context) error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	var subs []*subscriber
	for s := range c.subscribers {
		subs = append(subs, s)
	}
	c.mu.Unlock()
	if !again {
		c.stopMover(ctx)
		c.closeSubscribers(ctx, subs)
		c.endExclusives(ctx)
		c.cancel()
		c.out.fail(driver.ErrUnconfirmed)
		var ends sync.WaitGroup
		half, cancel := context.WithTimeout(ctx, share(ctx))
		defer cancel()
		ends.Go(func() { c.publish.close(half) })
		ends.Go(func() { c.consume.close(half) })
		ends.Go(func() { c.movers.close(half) })
		ends.Wait()
	}
	ended := make(chan struct{})
	go func() {
		c.tasks.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// closeSubscribers gives back what is held. Where the broker does not answer,
// the end of its connection does.
func (c *Conn) closeSubscribers(ctx context.Context, subs []*subscriber) {
	ctx, cancel := context.WithTimeout(ctx, share(ctx))
	defer cancel()
	var ends sync.WaitGroup
	for _, s := range subs {
		ends.Go(func() {
			if s.Close(ctx) != nil {
				s.breakOff()
			}
		})
	}
	ends.Wait()
}

// share is how long one step of Close may wait for the broker: half of the
// time that is left, and no more than answerTime.
func share(ctx context.Context) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		return min(answerTime, time.Until(deadline)/2)
	}
	return answerTime
}
