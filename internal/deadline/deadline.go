// Package deadline is for tests of what ends with its context.
package deadline

import (
	"context"
	"time"
)

// Call runs f with a context that ends after d, and reports whether it was late: not
// back within the patience after that. It counts the patience in steps, since a process
// that stands still is not late.
func Call(ctx context.Context, d, patience time.Duration, f func(context.Context) error) (late bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	select {
	case err := <-ended:
		return false, err
	case <-ctx.Done():
	}
	const steps = 100
	for range steps {
		select {
		case err := <-ended:
			return false, err
		case <-time.After(patience / steps):
		}
	}
	return true, <-ended
}
