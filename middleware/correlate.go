package middleware

import (
	"cmp"
	"context"

	"github.com/polymq/polymq"
)

type correlationKey struct{}

// WithCorrelationID is ctx with a correlation ID, which CorrelatePublish gives to
// what is published under it.
func WithCorrelationID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, correlationKey{}, id)
}

// CorrelationID is the correlation ID that ctx carries; "" where it has none.
func CorrelationID(ctx context.Context) string {
	id, _ := ctx.Value(correlationKey{}).(string)
	return id
}

// Correlate puts the CorrelationID of a delivery into the handler's ctx, or its ID
// where it has none: what comes of a message belongs to it.
func Correlate() polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) error {
			if id := cmp.Or(d.CorrelationID, d.ID); id != "" {
				ctx = WithCorrelationID(ctx, id)
			}
			return next(ctx, d)
		}
	}
}

// CorrelatePublish gives messages that have no CorrelationID the one that ctx
// carries. A Requester's calls have their own.
func CorrelatePublish() polymq.PublishMiddleware {
	return func(next polymq.PublishFunc) polymq.PublishFunc {
		return func(ctx context.Context, msgs ...*polymq.Message) error {
			id := CorrelationID(ctx)
			if id == "" {
				return next(ctx, msgs...)
			}
			out := make([]*polymq.Message, len(msgs))
			for i, m := range msgs {
				out[i] = m
				if m != nil && m.CorrelationID == "" {
					c := *m
					c.CorrelationID = id
					out[i] = &c
				}
			}
			return next(ctx, out...)
		}
	}
}
