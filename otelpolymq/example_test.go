package otelpolymq_test

import (
	"context"
	"fmt"
	"log"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/otelpolymq"
	"github.com/polymq/polymq/routing"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// One trace from the publish to the handler. A program has an exporter in place
// of the memory, and usually sets otel's global providers and propagator and
// calls New(nil).
func Example() {
	ctx := context.Background()
	spans := tracetest.NewInMemoryExporter()
	observer, err := otelpolymq.New(&otelpolymq.Options{
		TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans)),
		MeterProvider:  sdkmetric.NewMeterProvider(),
		Propagator:     propagation.TraceContext{},
	})
	if err != nil {
		log.Fatal(err)
	}
	conn, err := polymq.Open(ctx, "mem://example", &polymq.Options{Observers: []polymq.Observer{observer}})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
	err = conn.Declare(ctx, routing.Topology{
		Queues:   []routing.Queue{{Name: "billing"}},
		Bindings: []routing.Binding{{Exchange: "amq.topic", Queue: "billing", Key: "order.*"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	pub, err := conn.Publisher(ctx, "amq.topic", nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := pub.Publish(ctx, &polymq.Message{Key: "order.paid"}); err != nil {
		log.Fatal(err)
	}
	sub, err := conn.Subscriber(ctx, "billing", nil)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := context.WithCancel(ctx)
	err = sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		fmt.Println("in a trace:", trace.SpanContextFromContext(ctx).IsValid())
		stop()
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}

	all := spans.GetSpans()
	for _, span := range all {
		fmt.Println(span.Name, span.SpanContext.TraceID() == all[0].SpanContext.TraceID())
	}
	// Output:
	// in a trace: true
	// publish amq.topic true
	// process billing true
	// ack billing true
}

func ExampleObserver_WatchQueues() {
	ctx := context.Background()
	observer, err := otelpolymq.New(nil)
	if err != nil {
		log.Fatal(err)
	}
	conn, err := polymq.Open(ctx, "mem://example-queues", &polymq.Options{Observers: []polymq.Observer{observer}})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close(ctx)
	registration, err := observer.WatchQueues(conn, []string{"billing", "billing.dead"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(registration.Unregister())
	// Output: <nil>
}
