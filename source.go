package polymq

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
)

// source is one consumption of a queue by a driver. A subscriber has one at a
// time, and another after a pause, or after its queue was made anew. One that
// was left stays for the deliveries that it handed out.
type source struct {
	ds    driver.Subscriber
	users atomic.Int64  // receiving calls, unsettled deliveries, and one until it is left
	left  chan struct{} // closed when no user is left and the driver's subscriber is closed
}

func newSource(ds driver.Subscriber) *source {
	src := &source{ds: ds, left: make(chan struct{})}
	src.users.Store(1)
	return src
}

// enter takes part; false where all have left.
func (src *source) enter() bool {
	for {
		n := src.users.Load()
		if n == 0 {
			return false
		}
		if src.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leave ends one part. With the last one the source is closed, which is waited for
// until ctx ends, and may take longer: sources wait for it when they close.
func (src *source) leave(ctx context.Context) error {
	if src.users.Add(-1) > 0 {
		return nil
	}
	closed := make(chan error, 1)
	go func() {
		defer close(src.left)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		closed <- src.ds.Close(ctx)
	}()
	select {
	case err := <-closed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isLeft reports that nothing of it is under way any more.
func (src *source) isLeft() bool {
	select {
	case <-src.left:
		return true
	default:
		return false
	}
}

// close ends it for all its users.
func (src *source) close(ctx context.Context) error {
	err := src.ds.Close(ctx)
	if src.users.Load() > 0 {
		return err
	}
	select {
	case <-src.left:
	case <-ctx.Done():
	}
	return err
}

// sources are a subscriber's source and the way to another.
type sources struct {
	open  func(ctx context.Context) (driver.Subscriber, error)
	waits func() bool // for a queue that is gone
	anew  func()      // told when another source takes its place; nil: nobody

	current atomic.Pointer[source] // nil while there is none
	turn    chan struct{}          // cap 1: held while changing current
	life    context.Context        // ends when the subscriber's Close begins
	end     context.CancelFunc

	mu     sync.Mutex
	paused chan struct{} // closed when the pause ends; nil: not paused
	old    map[*source]struct{}
}

func (x *sources) init(ds driver.Subscriber) {
	x.turn = make(chan struct{}, 1)
	x.life, x.end = context.WithCancel(context.Background())
	x.old = map[*source]struct{}{}
	x.current.Store(newSource(ds))
}

// receive fills buf from the present source. While there is none, it waits for
// the end of the pause, or for the queue.
func (x *sources) receive(ctx context.Context, buf []*driver.Delivery) (*source, int, error) {
	for {
		src, err := x.get(ctx)
		if err != nil {
			return nil, 0, err
		}
		if !src.enter() {
			continue // left just now
		}
		n, err := src.ds.Receive(ctx, buf)
		if err == nil && n > 0 {
			src.users.Add(int64(n) - 1)
			return src, n, nil
		}
		_ = src.leave(ctx) // where it was left meanwhile, nobody waits for its end
		switch {
		case err == nil:
			return nil, 0, errors.New("the driver returned neither a delivery nor an error")
		case x.life.Err() != nil:
			return nil, 0, ErrClosed
		case errors.Is(err, ErrClosed) && x.current.Load() != src:
			continue // paused
		case errors.Is(err, ErrNotFound) && x.waits():
			err = x.change(ctx, func(ctx context.Context) error {
				if x.quit(src) {
					_ = src.leave(ctx) // what it held went with the queue
				}
				return nil
			})
			if err == nil {
				continue
			}
		}
		return nil, 0, err
	}
}

// The pauses between looks for a queue that is gone.
const (
	reopenMin = 20 * time.Millisecond
	reopenMax = time.Second
)

func (x *sources) get(ctx context.Context) (*source, error) {
	for pause := reopenMin; ; {
		if src := x.current.Load(); src != nil {
			return src, nil
		}
		var again <-chan time.Time
		resumed := x.pausing()
		if resumed == nil {
			err := x.change(ctx, x.reopen)
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrNotFound) || !x.waits() {
				return nil, err
			}
			again = time.After(pause)
			pause = min(2*pause, reopenMax)
		}
		select {
		case <-resumed:
		case <-again:
		case <-x.life.Done():
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// change runs f, which ends with the subscriber, while nobody else changes the
// source.
func (x *sources) change(ctx context.Context, f func(ctx context.Context) error) error {
	select {
	case x.turn <- struct{}{}:
		defer func() { <-x.turn }()
	case <-x.life.Done():
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	if x.life.Err() != nil { // both were ready: what is changed now nobody would close
		return ErrClosed
	}
	bound, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(x.life, cancel)()
	err := f(bound)
	if x.life.Err() != nil {
		return ErrClosed
	}
	return err
}

// reopen makes a source where there is none and no pause.
func (x *sources) reopen(ctx context.Context) error {
	if x.pausing() != nil || x.current.Load() != nil {
		return nil
	}
	ds, err := x.open(ctx)
	if err == nil {
		x.current.Store(newSource(ds))
		if x.anew != nil {
			x.anew()
		}
	}
	return err
}

// quit makes src, if it is the present source, an old one, which the caller
// leaves.
func (x *sources) quit(src *source) bool {
	if !x.current.CompareAndSwap(src, nil) {
		return false
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for s := range x.old {
		if s.isLeft() {
			delete(x.old, s)
		}
	}
	x.old[src] = struct{}{}
	return true
}

// close ends all sources.
func (x *sources) close(ctx context.Context) error {
	x.end()
	x.turn <- struct{}{} // who has it ends now
	defer func() { <-x.turn }()
	x.mu.Lock()
	old := x.old
	x.old = nil
	x.mu.Unlock()
	var errs []error
	if src := x.current.Load(); src != nil {
		errs = append(errs, src.close(ctx))
	}
	for src := range old {
		errs = append(errs, src.close(ctx))
	}
	return first(errs...)
}
