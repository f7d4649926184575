package polymq

import (
	"context"
	"sync/atomic"
)

// ending makes a Close idempotent: the first call does the work, the others
// wait for its result.
type ending struct {
	begun atomic.Bool
	done  chan struct{}
	err   error // set before done is closed
}

func newEnding() ending { return ending{done: make(chan struct{})} }

func (e *ending) do(ctx context.Context, end func() error) error {
	if e.begun.CompareAndSwap(false, true) {
		e.err = end()
		close(e.done)
		return e.err
	}
	select {
	case <-e.done: // also where ctx has ended
		return e.err
	default:
	}
	select {
	case <-e.done:
		return e.err
	case <-ctx.Done():
		return ctx.Err()
	}
}
