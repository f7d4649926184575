package otelpolymq

import (
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/semconv/v1.43.0/messagingconv"
)

// metrics are the instruments of an observer.
type metrics struct {
	sent, consumed      metric.Int64Counter
	settled             metric.Int64Counter
	redelivered         metric.Int64Counter
	reconnects          metric.Int64Counter
	publishing, working metric.Int64UpDownCounter
	operation, process  metric.Float64Histogram
	waited              metric.Float64Histogram
}

// durations are the boundaries that the conventions ask for.
var durations = metric.WithExplicitBucketBoundaries(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

// waits are for messages, which can lie for days.
var waits = metric.WithExplicitBucketBoundaries(1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)

func (m *metrics) init(meter metric.Meter) (err error) {
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	counter := func(name, unit, what string) metric.Int64Counter {
		c, e := meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(what))
		keep(e)
		return c
	}
	upDown := func(name, what string) metric.Int64UpDownCounter {
		c, e := meter.Int64UpDownCounter(name, metric.WithUnit("{message}"), metric.WithDescription(what))
		keep(e)
		return c
	}
	sent, e := messagingconv.NewClientSentMessages(meter)
	keep(e)
	consumed, e := messagingconv.NewClientConsumedMessages(meter)
	keep(e)
	operation, e := messagingconv.NewClientOperationDuration(meter, durations)
	keep(e)
	process, e := messagingconv.NewProcessDuration(meter, durations)
	keep(e)
	m.sent, m.consumed, m.operation, m.process = sent.Inst(), consumed.Inst(), operation.Inst(), process.Inst()

	m.settled = counter("polymq.client.settled.messages", "{message}", "Number of settlements, by messaging.operation.name.")
	m.redelivered = counter("polymq.client.redelivered.messages", "{message}", "Number of deliveries that may not have been the message's first.")
	m.reconnects = counter("polymq.client.reconnects", "{reconnect}", "Number of times that a lost connection came back.")
	m.publishing = upDown("polymq.producer.in_flight", "Number of messages that are sent and have no outcome yet.")
	m.working = upDown("polymq.consumer.in_flight", "Number of deliveries that the application has not settled yet.")
	m.waited, e = meter.Float64Histogram("polymq.message.time_in_queue", metric.WithUnit("s"), waits,
		metric.WithDescription("Time from when a message came about, as it says itself, to its delivery."))
	keep(e)
	return err
}

// label is what tells apart the series of a connection.
type label struct{ operation, kind, destination, failure string }

// labels keeps the attributes of each label, which would cost more than the
// measurement to make anew.
type labels struct{ made sync.Map } // of metric.MeasurementOption by label

func (l *labels) of(p peer, x label) metric.MeasurementOption {
	if o, ok := l.made.Load(x); ok {
		return o.(metric.MeasurementOption)
	}
	attrs := append([]attribute.KeyValue(nil), p...)
	for _, a := range [...]struct {
		key   attribute.Key
		value string
	}{
		{semconv.MessagingOperationNameKey, x.operation},
		{semconv.MessagingOperationTypeKey, x.kind},
		{semconv.MessagingDestinationTemplateKey, x.destination},
		{semconv.ErrorTypeKey, x.failure},
	} {
		if a.value != "" {
			attrs = append(attrs, a.key.String(a.value))
		}
	}
	o, _ := l.made.LoadOrStore(x, metric.WithAttributeSet(attribute.NewSet(attrs...)))
	return o.(metric.MeasurementOption)
}
