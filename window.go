package polymq

import (
	"context"
	"slices"
	"sync"
)

// window counts the messages that are on their way: a semaphore that serves
// in the order of asking, so that a large batch is not starved by small ones.
type window struct {
	size int

	mu      sync.Mutex
	free    int
	closed  bool
	waiters []*waiter
}

type waiter struct {
	n    int
	done chan error // cap 1
}

// acquire takes n places, at most size. ErrClosed once the window is closed.
func (w *window) acquire(ctx context.Context, n int) error {
	w.mu.Lock()
	switch {
	case w.closed:
		w.mu.Unlock()
		return ErrClosed
	case w.free >= n && len(w.waiters) == 0:
		w.free -= n
		w.mu.Unlock()
		return nil
	}
	return w.wait(ctx, n)
}

// close refuses those who wait and those who come, then waits until nothing
// is on its way.
func (w *window) close(ctx context.Context) error {
	w.mu.Lock()
	w.closed = true
	for _, wt := range w.waiters {
		wt.done <- ErrClosed
	}
	w.waiters = nil
	return w.wait(ctx, w.size)
}

// wait is called with the mutex held and gives it up.
func (w *window) wait(ctx context.Context, n int) error {
	wt := &waiter{n: n, done: make(chan error, 1)}
	w.waiters = append(w.waiters, wt)
	w.grant()
	w.mu.Unlock()
	select {
	case err := <-wt.done:
		return err
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case err := <-wt.done:
		return err
	default:
	}
	i := slices.Index(w.waiters, wt)
	w.waiters = slices.Delete(w.waiters, i, i+1)
	w.grant()
	return ctx.Err()
}

// release gives n places back.
func (w *window) release(n int) {
	w.mu.Lock()
	w.free += n
	w.grant()
	w.mu.Unlock()
}

func (w *window) grant() {
	for len(w.waiters) > 0 && w.waiters[0].n <= w.free {
		wt := w.waiters[0]
		w.waiters = slices.Delete(w.waiters, 0, 1)
		w.free -= wt.n
		wt.done <- nil
	}
}
