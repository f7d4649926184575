package middleware

import (
	"context"
	"fmt"
	"time"

	"github.com/polymq/polymq"
)

// Timeout ends the ctx of each call of the handler after d. It relies on the
// handler to heed its ctx: one that does not is waited for. An error that the
// handler returns after the time was over says so, and wraps both that error
// and context.DeadlineExceeded. d must be positive.
func Timeout(d time.Duration) polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, dl *polymq.Delivery) error {
			timed, cancel := context.WithTimeout(ctx, d)
			defer cancel()
			err := next(timed, dl)
			if err != nil && ctx.Err() == nil && timed.Err() != nil {
				return fmt.Errorf("the handler took longer than %v (%w): %w", d, context.DeadlineExceeded, err)
			}
			return err
		}
	}
}
