package polymq

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
)

// settleTimeout is how long Run waits for a settlement at least, and twice of
// it at most.
const settleTimeout = 10 * time.Second

// The pauses before a settlement that failed is tried again.
const (
	settlePauseMin = 50 * time.Millisecond
	settlePauseMax = 5 * time.Second
)

// Run takes deliveries and calls h for each, on SubscriberOptions.Concurrency
// goroutines, and settles them by what h returns (see Handler). A settlement
// is not bound to ctx and is given at least 10 s; one that fails is logged and
// tried again. A delay that the backend refuses is replaced by a short one.
//
// When ctx ends, Run takes no more, gives back what no handler has begun (a
// driver that is no driver.Drainer does so once the last handler has ended, and
// what waits for its turn by OrderBy is given back then as well), and waits for
// the handlers that run, up to SubscriberOptions.DrainTimeout. Their ctx carries
// the values of Run's, and ends only when that time is over, or when Run returns.
// Then Run closes the subscriber and returns nil; if handlers still ran, their
// messages have been given back with the rest, and the error says how many there
// were and wraps context.DeadlineExceeded.
//
// Run ends in the same way when it cannot go on, and returns the reason:
// ErrNotFound when the queue was deleted, ErrClosed when the subscriber or the
// connection was closed.
//
// A panic of h is not recovered: it ends the process, as on any goroutine,
// unless middleware.Recover is there. What the process held comes again.
func (s *Subscriber) Run(ctx context.Context, h Handler) error {
	if h == nil {
		return s.conn.wrap("run", s.queue, invalid("the handler is nil"))
	}
	return s.conn.wrap("run", s.queue, s.run(ctx, Chain(h, s.opts.Middleware...)))
}

func (s *Subscriber) run(ctx context.Context, h Handler) error {
	base := context.WithoutCancel(ctx)
	taking, stop := context.WithCancel(ctx)
	defer stop()
	working, abort := context.WithCancel(base)
	defer abort()
	r := &runner{s: s, h: h, base: base, taking: taking, stop: stop, working: working, ended: make(chan struct{})}
	r.workers.Store(int64(s.opts.Concurrency))
	if s.opts.OrderBy != nil {
		r.lanes = &lanes{key: s.opts.OrderBy, turn: make(chan struct{}, 1), busy: map[string][]*Delivery{}}
	}
	for range s.opts.Concurrency {
		go r.work()
	}

	<-taking.Done()
	drainErr := r.drain(s.opts.DrainTimeout)
	abort()
	closing, done := context.WithTimeout(base, settleTimeout)
	defer done()
	return first(r.failure(), drainErr, s.Close(closing))
}

// runner is one Run.
type runner struct {
	s       *Subscriber
	h       Handler
	base    context.Context // Run's, without its end
	taking  context.Context // ended: take no more
	stop    context.CancelFunc
	working context.Context // the handlers'

	lanes   *lanes       // nil where keys are not kept in order
	workers atomic.Int64 // not yet ended
	ended   chan struct{}
	running atomic.Int64 // handlers

	mu  sync.Mutex
	err error // why Run cannot go on
}

func (r *runner) fail(err error) {
	r.mu.Lock()
	if r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	r.stop()
}

func (r *runner) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// drain gives back what nobody has begun and waits for what runs.
func (r *runner) drain(timeout time.Duration) error {
	late := time.NewTimer(timeout)
	defer late.Stop()
	if src := r.s.sources.current.Load(); src != nil {
		if d, ok := src.ds.(driver.Drainer); ok {
			ctx, cancel := context.WithTimeout(r.base, timeout)
			if err := d.Drain(ctx); err != nil && !errors.Is(err, ErrClosed) {
				r.log("cannot give back early what is prefetched", nil, err)
			}
			cancel()
		}
	}
	select {
	case <-r.ended:
		return nil
	case <-late.C:
	}
	n := r.running.Load()
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d handlers still ran after the drain timeout of %v: %w", n, timeout, context.DeadlineExceeded)
}

func (r *runner) work() {
	returned := false
	defer func() {
		if !returned {
			if v := recover(); v != nil {
				// The process is to end by this panic before anybody
				// learns that the worker has ended.
				panic(v)
			}
			r.fail(errors.New("a handler ended its goroutine with runtime.Goexit"))
		}
		if r.workers.Add(-1) == 0 {
			close(r.ended)
		}
	}()
	r.loop()
	returned = true
}

func (r *runner) loop() {
	settle := settler{base: r.base}
	defer settle.end()
	for {
		d, lane, err := r.take()
		if err != nil {
			if r.taking.Err() == nil {
				r.fail(err)
			}
			return
		}
		for d != nil {
			r.running.Add(1)
			if r.s.hooks == nil {
				err = r.h(r.working, d)
			} else {
				settle.values, err = r.observed(d)
			}
			r.settle(&settle, d, err)
			r.running.Add(-1)
			d = r.lanes.next(lane, r.taking.Err() != nil)
		}
	}
}

// take receives a delivery that can be handled now; nil where it has to wait
// behind another of its key, whose worker will come to it.
func (r *runner) take() (d *Delivery, lane string, err error) {
	if r.lanes == nil {
		d, err = r.s.receiveOne(r.taking, true)
		return d, "", err
	}
	return r.lanes.enter(func() (*Delivery, error) { return r.s.receiveOne(r.taking, true) })
}

// settle does what the handler's error says, and tries until it is done or Run
// gives up: a message that is not settled would be held, and hold its place in
// the prefetch, until Close. A delay that is refused does not keep the message:
// it comes again after a short one that this worker waits for.
func (r *runner) settle(s *settler, d *Delivery, cause error) {
	if d.Settled() {
		return
	}
	attempt := d.Ack
	var delay time.Duration
	switch {
	case cause == nil:
	case IsPermanent(cause):
		attempt = d.Reject
	default:
		var ok bool
		if delay, ok = RetryDelay(cause); !ok {
			delay = max(r.s.opts.Backoff(max(d.Attempt, 1)), 0)
		}
		attempt = func(ctx context.Context) error { return d.Nack(ctx, delay) }
	}
	for pause := settlePauseMin; ; pause = min(2*pause, settlePauseMax) {
		err := attempt(s.ctx())
		if err == nil || errors.Is(err, ErrSettled) {
			return
		}
		if d.Settled() { // lost, or all is closed: there is nothing left to settle
			r.log("cannot settle", d, err)
			return
		}
		if delay > 0 {
			r.log("cannot delay the next attempt", d, err)
			pause, delay = min(delay, settlePauseMax), 0
			if errors.Is(err, errors.ErrUnsupported) {
				continue
			}
		} else {
			r.log("cannot settle yet", d, err)
		}
		select {
		case <-time.After(pause):
		case <-r.working.Done():
			return
		}
	}
}

func (r *runner) log(what string, d *Delivery, err error) {
	attrs := []slog.Attr{slog.String("queue", r.s.queue), slog.Any("error", err)}
	if d != nil {
		attrs = append(attrs, slog.String("id", d.ID))
	}
	r.s.conn.log.LogAttrs(r.base, slog.LevelWarn, "polymq: "+what, attrs...)
}

// settler makes the context of a worker's settlements: one for many of them,
// since a timer for each would cost more than the settlement.
type settler struct {
	base    context.Context
	current context.Context
	cancel  context.CancelFunc
	renew   time.Time
	values  context.Context // of the handler's, where hooks have been
}

func (s *settler) ctx() context.Context {
	if now := time.Now(); s.cancel == nil || now.After(s.renew) {
		s.end()
		s.current, s.cancel = context.WithTimeout(s.base, 2*settleTimeout)
		s.renew = now.Add(settleTimeout)
	}
	if s.values != nil {
		return withValues{s.current, s.values}
	}
	return s.current
}

func (s *settler) end() {
	if s.cancel != nil {
		s.cancel()
	}
}
