package otelpolymq

import (
	"context"
	"maps"

	"github.com/polymq/polymq"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

var _ propagation.TextMapCarrier = polymq.Header(nil)

// creation is the context that a message carries; not valid where it has none.
func (x *Observer) creation(m *polymq.Message) trace.SpanContext {
	if m == nil || len(m.Header) == 0 {
		return trace.SpanContext{}
	}
	return trace.SpanContextFromContext(x.propagator.Extract(context.Background(), m.Header))
}

// carrying is a copy of m that carries ctx; m itself where the propagator has
// nothing to put there.
func (x *Observer) carrying(ctx context.Context, m *polymq.Message) *polymq.Message {
	if m == nil {
		return nil
	}
	added := polymq.Header{}
	x.propagator.Inject(ctx, added)
	if len(added) == 0 {
		return m
	}
	if m.Header != nil {
		header := maps.Clone(m.Header)
		maps.Copy(header, added)
		added = header
	}
	c := *m
	c.Header = added
	return &c
}
