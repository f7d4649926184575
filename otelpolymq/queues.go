package otelpolymq

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/polymq/polymq"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// inspectTimeout bounds what a collection waits for a broker.
const inspectTimeout = 5 * time.Second

const stateKey = attribute.Key("polymq.queue.message.state")

// WatchQueues inspects queues at each collection of metrics, one after another
// and for 5 s at most, and reports polymq.queue.messages, ready and unsettled,
// and polymq.queue.consumers, with attrs beside messaging.system and the
// queue's name. A queue that cannot be inspected is left out, and the reason
// goes to otel's error handler. Unregister ends it; do that before the
// connection is closed.
//
// What an inspection costs and how exact it is, the driver's package says: on
// RabbitMQ the unsettled ones are the management plugin's count, some seconds old.
func (x *Observer) WatchQueues(c *polymq.Conn, queues []string, attrs ...attribute.KeyValue) (metric.Registration, error) {
	messages, err := x.meter.Int64ObservableGauge("polymq.queue.messages", metric.WithUnit("{message}"),
		metric.WithDescription("Number of messages in a queue, by polymq.queue.message.state: ready or unsettled."))
	if err != nil {
		return nil, err
	}
	consumers, err := x.meter.Int64ObservableGauge("polymq.queue.consumers", metric.WithUnit("{consumer}"),
		metric.WithDescription("Number of subscribers of a queue."))
	if err != nil {
		return nil, err
	}
	queues = slices.Clone(queues)
	system := semconv.MessagingSystemKey.String(systemOfBackend(c.Features().Backend))
	look := func(ctx context.Context, o metric.Observer) error {
		ctx, cancel := context.WithTimeout(ctx, inspectTimeout)
		defer cancel()
		var errs []error
		for _, q := range queues {
			info, err := c.Inspect(ctx, q)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			all := append(slices.Clone(attrs), system, semconv.MessagingDestinationName(q))
			o.ObserveInt64(messages, int64(info.Ready), metric.WithAttributes(append(slices.Clone(all), stateKey.String("ready"))...))
			o.ObserveInt64(messages, int64(info.Unsettled), metric.WithAttributes(append(slices.Clone(all), stateKey.String("unsettled"))...))
			o.ObserveInt64(consumers, int64(info.Consumers), metric.WithAttributes(all...))
		}
		return errors.Join(errs...)
	}
	return x.meter.RegisterCallback(look, messages, consumers)
}
