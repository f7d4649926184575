package polymq

import (
	"context"

	"github.com/polymq/polymq/driver"
)

// Pause gives back at once what is prefetched and not handed out, and takes no
// more until Resume: Receive waits, and Run has nothing new for its handlers.
// What was handed out stays held and can be settled. Pausing again is nothing.
// A queue with a single active consumer goes on with the next one; one that
// deletes itself when its last subscriber has gone is deleted. The error tells
// what could not be given back, ctx's that it is being given back still; the pause
// stands all the same, unless the driver cannot pause (errors.ErrUnsupported) or
// the subscriber is closed.
func (s *Subscriber) Pause(ctx context.Context) error {
	err := s.sources.change(ctx, s.sources.pause)
	return s.conn.wrap("pause", s.queue, err)
}

// Resume ends a pause; without one it does nothing. When it fails the pause is
// over nevertheless, and receiving tries again. ErrNotFound means that the
// queue was deleted.
func (s *Subscriber) Resume(ctx context.Context) error {
	err := s.sources.change(ctx, func(ctx context.Context) error {
		s.sources.unpause()
		return s.sources.reopen(ctx)
	})
	return s.conn.wrap("resume", s.queue, err)
}

func (x *sources) pause(ctx context.Context) error {
	src := x.current.Load()
	var drainer driver.Drainer
	if src != nil {
		var ok bool
		if drainer, ok = src.ds.(driver.Drainer); !ok {
			return unsupported("the driver cannot stop taking before it closes: close the subscriber instead")
		}
	}
	x.mu.Lock()
	if x.paused == nil {
		x.paused = make(chan struct{})
	}
	x.mu.Unlock()
	if src == nil || !x.quit(src) {
		return nil
	}
	return first(drainer.Drain(ctx), src.leave(ctx))
}

// pausing is closed when the pause ends; nil where there is none.
func (x *sources) pausing() <-chan struct{} {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.paused
}

func (x *sources) unpause() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.paused != nil {
		close(x.paused)
		x.paused = nil
	}
}
