package middleware

import (
	"context"
	"time"

	"golang.org/x/time/rate"

	"github.com/polymq/polymq"
)

// Throttle lets handlers begin at the rate of l, which several subscribers may
// share. A message that waits is held, and takes a place in the prefetch and one of
// Concurrency. When ctx ends first, it is nacked to come again at once, unhandled;
// when ctx would, by its deadline, to come again when there is a place. That counts
// as an attempt: let Throttle stand before Timeout.
// l must allow a burst of 1 or more.
//
// Where it stands in the list decides what is counted: before Retry a message
// counts once, behind it each try does.
func Throttle(l *rate.Limiter) polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			if err := l.Wait(ctx); err != nil {
				return polymq.RetryAfter(later(ctx, l), err)
			}
			return next(ctx, d)
		}
	}
}

// later is when to try again after ctx has ended a wait, or would have.
func later(ctx context.Context, l *rate.Limiter) time.Duration {
	if ctx.Err() != nil {
		return 0
	}
	r := l.Reserve()
	defer r.Cancel()
	return r.Delay()
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
