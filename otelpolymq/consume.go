package otelpolymq

import (
	"context"
	"time"

	"github.com/polymq/polymq"
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

func (c *conn) receive(ctx context.Context, e polymq.ReceiveEvent) {
	now, queue := time.Now(), queueName(e.Queue)
	operation := "receive"
	if e.Handler {
		operation = "process" // the wait is not the application's
	} else {
		c.receiveSpan(ctx, e, now)
		c.metrics.operation.Record(ctx, now.Sub(e.Begun).Seconds(),
			c.labels.of(c.peer, label{operation: operation, kind: "receive", destination: queue, failure: errorType(e.Err)}))
	}
	if e.Err != nil {
		return
	}
	of := c.labels.of(c.peer, label{operation: operation, destination: queue})
	redelivered := 0
	for _, d := range e.Deliveries {
		if d.Redelivered {
			redelivered++
		}
		if !d.Time.IsZero() {
			c.metrics.waited.Record(ctx, max(now.Sub(d.Time), 0).Seconds(), c.labels.of(c.peer, label{destination: queue}))
		}
	}
	n := int64(len(e.Deliveries))
	c.metrics.consumed.Add(ctx, n, of)
	if redelivered > 0 {
		c.metrics.redelivered.Add(ctx, int64(redelivered), c.labels.of(c.peer, label{destination: queue}))
	}
	c.metrics.working.Add(ctx, n, c.labels.of(c.peer, label{destination: queue}))
}

func (c *conn) receiveSpan(ctx context.Context, e polymq.ReceiveEvent, now time.Time) {
	var links []trace.Link
	for _, d := range e.Deliveries {
		links = c.link(links, d)
	}
	attrs := c.queueAttributes("receive", semconv.MessagingOperationTypeReceive, e.Queue)
	switch {
	case e.Batch || len(e.Deliveries) == 0:
		attrs = append(attrs, semconv.MessagingDestinationName(e.Queue))
		if e.Batch {
			attrs = append(attrs, semconv.MessagingBatchMessageCount(len(e.Deliveries)))
		}
	default:
		attrs = append(attrs, deliveryAttributes(e.Deliveries[0])...)
	}
	_, span := c.tracer.Start(ctx, "receive "+queueName(e.Queue),
		trace.WithTimestamp(e.Begun), trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(links...), trace.WithAttributes(attrs...))
	end(span, now, e.Err)
}

type processKey struct{ c *conn }

func (c *conn) processBegin(ctx context.Context, e polymq.ProcessEvent) context.Context {
	d := e.Delivery
	around := trace.SpanFromContext(ctx)
	if d.Message != nil && len(d.Header) > 0 {
		ctx = c.propagator.Extract(ctx, d.Header) // the baggage, and the context as parent
		if around.SpanContext().IsValid() {
			ctx = trace.ContextWithSpan(ctx, around)
		}
	}
	ctx, span := c.tracer.Start(ctx, "process "+queueName(d.Queue),
		trace.WithTimestamp(e.Begun),
		trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(c.link(nil, d)...),
		trace.WithAttributes(append(c.queueAttributes("process", semconv.MessagingOperationTypeProcess, d.Queue), deliveryAttributes(d)...)...))
	return context.WithValue(ctx, processKey{c}, span)
}

func (c *conn) processEnd(ctx context.Context, e polymq.ProcessEvent) {
	now := time.Now()
	c.metrics.process.Record(ctx, now.Sub(e.Begun).Seconds(),
		c.labels.of(c.peer, label{operation: "process", destination: queueName(e.Delivery.Queue), failure: errorType(e.Err)}))
	if span, ok := ctx.Value(processKey{c}).(trace.Span); ok {
		end(span, now, e.Err)
	}
}

func (c *conn) settle(ctx context.Context, e polymq.SettleEvent) {
	now, d, operation := time.Now(), e.Delivery, e.Outcome.String()
	queue := queueName(d.Queue)
	c.metrics.settled.Add(ctx, 1, c.labels.of(c.peer, label{operation: operation, destination: queue, failure: errorType(e.Err)}))
	c.metrics.operation.Record(ctx, now.Sub(e.Begun).Seconds(),
		c.labels.of(c.peer, label{operation: operation, kind: "settle", destination: queue, failure: errorType(e.Err)}))
	if e.Done {
		c.metrics.working.Add(ctx, -1, c.labels.of(c.peer, label{destination: queue}))
	}
	_, span := c.tracer.Start(ctx, operation+" "+queue,
		trace.WithTimestamp(e.Begun),
		trace.WithSpanKind(trace.SpanKindClient),
		trace.WithLinks(c.link(nil, d)...),
		trace.WithAttributes(append(c.queueAttributes(operation, semconv.MessagingOperationTypeSettle, d.Queue), deliveryAttributes(d)...)...))
	end(span, now, e.Err)
}

func (c *conn) release(e polymq.ReleaseEvent) {
	c.metrics.working.Add(context.Background(), -int64(e.Count), c.labels.of(c.peer, label{destination: queueName(e.Queue)}))
}

func (c *conn) state(s polymq.State, _ error) {
	switch s {
	case polymq.StateDisconnected:
		c.lost = true
	case polymq.StateConnected:
		if c.lost {
			c.metrics.reconnects.Add(context.Background(), 1, c.labels.of(c.peer, label{}))
		}
		c.lost = false
	}
}

// link adds one to the context that a delivery carries.
func (c *conn) link(links []trace.Link, d *polymq.Delivery) []trace.Link {
	if sc := c.creation(d.Message); sc.IsValid() {
		links = append(links, trace.Link{SpanContext: sc})
	}
	return links
}

func (c *conn) queueAttributes(name string, kind attribute.KeyValue, queue string) []attribute.KeyValue {
	attrs := append(make([]attribute.KeyValue, 0, 12), c.peer...)
	attrs = append(attrs, semconv.MessagingOperationName(name), kind, semconv.MessagingDestinationTemplate(queueName(queue)))
	if temporary(queue) {
		attrs = append(attrs, semconv.MessagingDestinationTemporary(true), semconv.MessagingDestinationAnonymous(true))
	}
	return attrs
}

func deliveryAttributes(d *polymq.Delivery) []attribute.KeyValue {
	attrs := append(messageAttributes(d.Message), semconv.MessagingDestinationName(destination(d.Exchange, d.Key, d.Queue)))
	if d.Key != "" {
		attrs = append(attrs, semconv.MessagingRabbitMQDestinationRoutingKey(d.Key))
	}
	return attrs
}
