package emulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Config is what a driver hands to New. Every field may be left out.
type Config struct {
	// Logger hears of what is retried. Default: nothing is logged.
	Logger *slog.Logger
	// CheckQueue refuses queues that the store cannot keep as declared, with
	// an error that says what to do. Default: a queue with a Type or with Args
	// is refused with errors.ErrUnsupported.
	CheckQueue func(routing.Queue) error
}

// conn is a store with exchanges. It has two goroutines, the keeper of its
// lease (lease.go) and the retrier (retry.go), a third, the janitor
// (janitor.go), where queues change by themselves, and each subscriber one.
// There are two more where messages were delayed (delayed.go), and one while
// exclusive queues are made anew (exclusive.go) or what was declared (restore.go).
type conn struct {
	store    Store
	cfg      Config
	features driver.Features
	topo     topology
	lease    lease
	retrier  retrier
	janitor  janitor
	own      exclusives
	restorer restorer
	endings  endings
	delays   delays

	ctx       context.Context // ends with Close
	stop      context.CancelFunc
	closed    atomic.Bool
	closeOnce sync.Once
	done      chan struct{} // Close has ended
	closeErr  error

	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

// New gives exchanges to a store. The connection owns the store from then on
// and closes it. The topology is read when it is first needed.
func New(ctx context.Context, st Store, cfg Config) (driver.Conn, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.CheckQueue == nil {
		cfg.CheckQueue = plainQueue
	}
	c := &conn{
		store:    st,
		cfg:      cfg,
		features: features(st.Features()),
		done:     make(chan struct{}),
		subs:     map[*subscriber]struct{}{},
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	c.topo.init(c)
	c.lease.init(c)
	c.retrier.init(c)
	c.janitor.init(c)
	c.own.init(c)
	c.restorer.init(c)
	c.endings.init(c)
	c.delays.init(c)
	if err := st.WatchTopology(ctx, c.topologyChanged); err != nil {
		c.stop()
		return nil, err
	}
	go c.lease.run()
	go c.retrier.run()
	return c, nil
}

func (c *conn) topologyChanged(back bool) {
	if back {
		c.own.loseAll()
		c.restorer.begin()
	}
	c.lease.changed()
}

// plainQueue refuses what only RabbitMQ has. The two types that it has for queues
// like these are one here, which can do what either can.
func plainQueue(q routing.Queue) error {
	switch q.Type {
	case "", routing.Quorum, routing.Classic:
	default:
		return fmt.Errorf("%w: queue %q has the type %q, which only RabbitMQ has: want %s or %s, or leave it empty", errors.ErrUnsupported, q.Name, q.Type, routing.Quorum, routing.Classic)
	}
	for name := range q.Args {
		return fmt.Errorf("%w: queue %q has the argument %q, which this backend does not know: remove it", errors.ErrUnsupported, q.Name, name)
	}
	return nil
}

// features adds what the emulation gives to any store.
func features(f driver.Features) driver.Features {
	support := map[driver.Feature]driver.Support{
		driver.Confirms: driver.Native, driver.Dedup: driver.Native, driver.Attempts: driver.Native,
		driver.DelayedNack: driver.Native, driver.Inspect: driver.Native, driver.Purge: driver.Native,
	}
	for _, name := range []driver.Feature{driver.MaxLength, driver.Priority, driver.SingleActive} {
		support[name] = driver.Emulated
	}
	for name, s := range f.Support {
		support[name] = s
	}
	for _, name := range []driver.Feature{
		driver.Routing, driver.Unroutable, driver.ReadBack, driver.DeadLetter, driver.MaxAttempts,
		driver.Delay, driver.TTL, driver.Expires, driver.Exclusive, driver.AutoDelete,
	} {
		support[name] = driver.Emulated
	}
	f.Support = support
	if f.DelayPrecision == 0 {
		f.DelayPrecision = 10 * time.Millisecond
	}
	return f
}

func (c *conn) Features() driver.Features { return c.features }
func (c *conn) Native() any               { return c.store.Native() }

func (c *conn) Health(ctx context.Context) error {
	if c.closed.Load() {
		return driver.ErrClosed
	}
	return c.store.Health(ctx)
}

func (c *conn) Inspect(ctx context.Context, name string) (info driver.QueueInfo, err error) {
	err = c.onQueue(ctx, name, func(q *Queue) error {
		info, err = c.store.Inspect(ctx, q)
		return err
	})
	return info, err
}

func (c *conn) Purge(ctx context.Context, name string) (n int, err error) {
	err = c.onQueue(ctx, name, func(q *Queue) error {
		n, err = c.store.Purge(ctx, q)
		return err
	})
	return n, err
}

// onQueue does something with a queue as it stands now. A queue that turns out
// to be gone was deleted meanwhile, perhaps made anew, or the broker has lost
// it, upon which it leaves the topology.
func (c *conn) onQueue(ctx context.Context, name string, f func(*Queue) error) error {
	for try := 0; ; try++ {
		st, err := c.refresh(ctx)
		if err != nil {
			return err
		}
		q := st.queues[name]
		if q == nil {
			return fmt.Errorf("queue %q: %w", name, driver.ErrNotFound)
		}
		if err := c.locked(q); err != nil {
			return err
		}
		if err := f(q); !errors.Is(err, ErrGone) {
			return err
		}
		there, err := c.store.QueueExists(ctx, q)
		if err == nil && !there && !c.restorer.awaits(name) {
			err = c.forget(ctx, q)
		} else if err == nil {
			err = sleep(ctx, c.ctx, backoff(try))
		}
		if err != nil {
			return err
		}
	}
}

// Close ends subscribers, then publishing, then the store. The lease is given
// up, so that nobody waits for it.
func (c *conn) Close(ctx context.Context) error {
	c.closeOnce.Do(func() {
		c.closed.Store(true)
		go func() {
			defer close(c.done)
			c.closeErr = c.shut(ctx)
		}()
	})
	return ended(ctx, c.done, &c.closeErr)
}

func (c *conn) shut(ctx context.Context) error {
	c.mu.Lock()
	subs := c.subs
	c.subs = nil
	c.mu.Unlock()
	var ends sync.WaitGroup
	for s := range subs {
		ends.Go(func() { s.Close(ctx) })
	}
	ends.Wait()
	c.delays.close()
	c.restorer.close()
	c.own.end(ctx)
	c.janitor.close(ctx)
	c.stop()
	c.lease.end(ctx)
	<-c.lease.done
	<-c.retrier.done
	return c.store.Close(ctx)
}

// ended waits for the end of a Close. One that has ended already is nil also
// for a ctx that has.
func ended(ctx context.Context, done chan struct{}, err *error) error {
	select {
	case <-done:
		return *err
	default:
	}
	select {
	case <-done:
		return *err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// within bounds what is done beside the caller's own wish: undoing, telling
// the broker of the end.
func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), d)
}
