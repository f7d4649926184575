package middleware

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/polymq/polymq"
)

// Log writes one line for every delivery that the handler has ended with: at
// level where it succeeded, at slog.LevelError where it failed or panicked. It
// holds the queue, exchange, key, ID and attempt, what becomes of the delivery
// (ack, nack, reject, settled) and how long the handler took, but never
// headers or the body. l must not be nil.
//
// A panic goes on after its line. To see a handler's panic as an error, put
// Recover behind Log.
func Log(l *slog.Logger, level slog.Level) polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			began := time.Now()
			returned := false
			defer func() {
				if !returned {
					write(ctx, l, slog.LevelError, d, "panic", time.Since(began), nil)
				}
			}()
			err := next(ctx, d)
			returned = true
			at := level
			if err != nil {
				at = slog.LevelError
			}
			write(ctx, l, at, d, outcome(d, err), time.Since(began), err)
			return err
		}
	}
}

func outcome(d *polymq.Delivery, err error) string {
	switch {
	case d.Settled():
		return "settled"
	case err == nil:
		return "ack"
	case polymq.IsPermanent(err):
		return "reject"
	}
	return "nack"
}

func write(ctx context.Context, l *slog.Logger, level slog.Level, d *polymq.Delivery, outcome string, took time.Duration, err error) {
	if !l.Enabled(ctx, level) {
		return
	}
	attrs := []slog.Attr{
		slog.String("queue", d.Queue),
		slog.String("exchange", d.Exchange),
		slog.String("key", d.Key),
		slog.String("id", d.ID),
		slog.Int("attempt", d.Attempt),
		slog.String("outcome", outcome),
		slog.Duration("took", took),
	}
	if err != nil {
		attrs = append(attrs, slog.Any("error", err))
	}
	if p, ok := errors.AsType[*PanicError](err); ok {
		attrs = append(attrs, slog.String("stack", string(p.Stack)))
	}
	l.LogAttrs(ctx, level, "delivery", attrs...)
}
