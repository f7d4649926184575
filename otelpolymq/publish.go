package otelpolymq

import (
	"context"
	"time"

	"github.com/polymq/polymq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

// publishKey leads to the span of a publish, of this connection and no other.
type publishKey struct{ c *conn }

func (c *conn) publishBegin(ctx context.Context, e polymq.PublishEvent) context.Context {
	exchange := exchangeName(e.Exchange)
	c.metrics.publishing.Add(ctx, int64(len(e.Messages)), c.labels.of(c.peer, label{destination: exchange}))

	batch := len(e.Messages) > 1
	links := make([]trace.Link, 0, len(e.Messages))
	carries := make([]bool, len(e.Messages)) // a context, before the span of publishing begins
	for i := range e.Messages {
		m := &e.Messages[i]
		sc := c.creation(m.Message)
		if !sc.IsValid() && batch && !c.noCreateSpans && m.Message != nil {
			sc = c.create(ctx, e, m)
		}
		if carries[i] = sc.IsValid(); carries[i] {
			links = append(links, trace.Link{SpanContext: sc})
		}
	}
	kind := trace.SpanKindProducer
	if len(links) == len(e.Messages) {
		kind = trace.SpanKindClient
	}
	ctx, span := c.tracer.Start(ctx, "publish "+exchange,
		trace.WithTimestamp(e.Begun),
		trace.WithSpanKind(kind),
		trace.WithLinks(links...),
		trace.WithAttributes(c.publishAttributes("publish", semconv.MessagingOperationTypeSend, e, e.Messages)...))
	for i := range e.Messages {
		if m := &e.Messages[i]; !carries[i] {
			m.Message = c.carrying(ctx, m.Message)
		}
	}
	return context.WithValue(ctx, publishKey{c}, span)
}

// create makes the span of one message among several, which carries its context
// from then on.
func (c *conn) create(ctx context.Context, e polymq.PublishEvent, m *polymq.PublishedMessage) trace.SpanContext {
	ctx, span := c.tracer.Start(ctx, "create "+exchangeName(e.Exchange),
		trace.WithTimestamp(e.Begun),
		trace.WithSpanKind(trace.SpanKindProducer),
		trace.WithAttributes(c.publishAttributes("create", semconv.MessagingOperationTypeCreate, e, []polymq.PublishedMessage{*m})...))
	m.Message = c.carrying(ctx, m.Message)
	span.End()
	return span.SpanContext()
}

func (c *conn) publishAttributes(name string, kind attribute.KeyValue, e polymq.PublishEvent, msgs []polymq.PublishedMessage) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 12), c.peer...)
	attrs = append(attrs, semconv.MessagingOperationName(name), kind, semconv.MessagingDestinationTemplate(exchangeName(e.Exchange)))
	if len(msgs) > 1 {
		attrs = append(attrs, semconv.MessagingBatchMessageCount(len(msgs)))
	}
	key, same := "", true
	for i, m := range msgs {
		switch {
		case m.Message == nil:
		case i == 0:
			key = m.Message.Key
		case m.Message.Key != key:
			same = false
		}
	}
	if !same {
		return append(attrs, semconv.MessagingDestinationName(destination(e.Exchange, "", "")))
	}
	attrs = append(attrs, semconv.MessagingDestinationName(destination(e.Exchange, key, "")))
	if key != "" {
		attrs = append(attrs, semconv.MessagingRabbitMQDestinationRoutingKey(key))
	}
	if len(msgs) == 1 && msgs[0].Message != nil {
		attrs = append(attrs, messageAttributes(msgs[0].Message)...)
	}
	return attrs
}

// messageAttributes are those of a span about one message alone.
func messageAttributes(m *polymq.Message) (attrs []attribute.KeyValue) {
	if m.ID != "" {
		attrs = append(attrs, semconv.MessagingMessageID(m.ID))
	}
	if m.CorrelationID != "" {
		attrs = append(attrs, semconv.MessagingMessageConversationID(m.CorrelationID))
	}
	return attrs
}

func (c *conn) publishEnd(ctx context.Context, e polymq.PublishEvent) {
	now := time.Now()
	exchange, n := exchangeName(e.Exchange), len(e.Messages)
	c.metrics.publishing.Add(ctx, -int64(n), c.labels.of(c.peer, label{destination: exchange}))
	sent := map[string]int64{}
	for _, m := range e.Messages {
		sent[errorType(m.Err)]++
	}
	for failure, n := range sent {
		c.metrics.sent.Add(ctx, n, c.labels.of(c.peer, label{operation: "publish", destination: exchange, failure: failure}))
	}
	c.metrics.operation.Record(ctx, now.Sub(e.Begun).Seconds(),
		c.labels.of(c.peer, label{operation: "publish", kind: "send", destination: exchange, failure: errorType(e.Err)}))

	span, ok := ctx.Value(publishKey{c}).(trace.Span)
	if !ok {
		return
	}
	if n == 1 && e.Messages[0].ID != "" {
		span.SetAttributes(semconv.MessagingMessageID(e.Messages[0].ID))
	}
	end(span, now, e.Err)
}

// end ends a span at a time that is its metric's, too.
func end(span trace.Span, at time.Time, err error) {
	if err != nil {
		span.SetStatus(codes.Error, err.Error())
		span.SetAttributes(semconv.ErrorTypeKey.String(errorType(err)))
	}
	span.End(trace.WithTimestamp(at))
}
