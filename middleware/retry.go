package middleware

import (
	"context"
	"time"

	"github.com/polymq/polymq"
)

// Retry calls the handler again when it fails, up to attempts calls in all,
// waiting backoff(n) after the n-th; nil means no wait. The message stays held
// in the meantime and its Attempt does not change, so Retry is for failures
// that pass within moments; for longer ones there is the subscriber's Backoff.
//
// It does not call again after Permanent and RetryAfter, nor when the delivery
// was settled by the handler, nor when ctx ends: the last error is returned.
func Retry(attempts int, backoff func(attempt int) time.Duration) polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			for n := 1; ; n++ {
				err := next(ctx, d)
				if err == nil || n >= attempts || final(err) || d.Settled() {
					return err
				}
				var wait time.Duration
				if backoff != nil {
					wait = backoff(n)
				}
				if !sleep(ctx, wait) {
					return err
				}
			}
		}
	}
}

// final reports whether the handler itself has said what is to become of the
// delivery.
func final(err error) bool {
	_, later := polymq.RetryDelay(err)
	return later || polymq.IsPermanent(err)
}

// sleep reports whether ctx is still there when d has passed.
func sleep(ctx context.Context, d time.Duration) bool {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return ctx.Err() == nil
}
