package middleware

import (
	"context"

	"golang.org/x/time/rate"

	"github.com/polymq/polymq"
)

// Throttle lets handlers begin at the rate of l, which several subscribers may
// share. A message that waits is held, and takes a place in the prefetch and one of
// Concurrency. When ctx ends first, it is nacked to come again at once, unhandled.
// l must allow a burst of 1 or more.
//
// Where it stands in the list decides what is counted: before Retry a message
// counts once, behind it each try does.
func Throttle(l *rate.Limiter) polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			if err := l.Wait(ctx); err != nil {
				return polymq.RetryAfter(0, err)
			}
			return next(ctx, d)
		}
	}
}

// ThrottlePublish lets messages be published at the rate of l. A batch waits for
// all its messages and then goes as one. When ctx ends first, or would by its
// deadline, nothing of the batch is sent, and the error is the limiter's. l must
// allow a burst of 1 or more.
func ThrottlePublish(l *rate.Limiter) polymq.PublishMiddleware {
	return func(next polymq.PublishFunc) polymq.PublishFunc {
		return func(ctx context.Context, msgs ...*polymq.Message) error {
			for left := len(msgs); left > 0; {
				n := min(left, max(l.Burst(), 1)) // more at once is refused
				if err := l.WaitN(ctx, n); err != nil {
					return err
				}
				left -= n
			}
			return next(ctx, msgs...)
		}
	}
}
