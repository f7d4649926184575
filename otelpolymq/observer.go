package otelpolymq

import (
	"github.com/polymq/polymq"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"
)

const scope = "github.com/polymq/polymq/otelpolymq"

// Options are the options of an observer. nil means the defaults.
type Options struct {
	// TracerProvider makes the spans; one of the package trace/noop makes
	// none. Default: otel.GetTracerProvider.
	TracerProvider trace.TracerProvider
	// MeterProvider makes the metrics; one of the package metric/noop makes
	// none. Default: otel.GetMeterProvider.
	MeterProvider metric.MeterProvider
	// Propagator carries the context in the headers. Default:
	// otel.GetTextMapPropagator, which carries nothing until it is set.
	Propagator propagation.TextMapPropagator
	// NoCreateSpans leaves out the span for each message of a Publish of
	// several: they carry the context of the publish span. Default: false.
	NoCreateSpans bool
}

// Observer makes traces and metrics of connections. It can be used by any
// number of them, and concurrently.
type Observer struct {
	tracer        trace.Tracer
	propagator    propagation.TextMapPropagator
	noCreateSpans bool
	meter         metric.Meter
	metrics       metrics
}

var _ polymq.Observer = (*Observer)(nil)

// New makes an observer. An error is of the MeterProvider, which does not make
// an instrument.
func New(opts *Options) (*Observer, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	if o.TracerProvider == nil {
		o.TracerProvider = otel.GetTracerProvider()
	}
	if o.MeterProvider == nil {
		o.MeterProvider = otel.GetMeterProvider()
	}
	if o.Propagator == nil {
		o.Propagator = otel.GetTextMapPropagator()
	}
	x := &Observer{
		tracer:        o.TracerProvider.Tracer(scope, trace.WithInstrumentationVersion(polymq.Version), trace.WithSchemaURL(semconv.SchemaURL)),
		propagator:    o.Propagator,
		noCreateSpans: o.NoCreateSpans,
		meter:         o.MeterProvider.Meter(scope, metric.WithInstrumentationVersion(polymq.Version), metric.WithSchemaURL(semconv.SchemaURL)),
	}
	return x, x.metrics.init(x.meter)
}

// Observe makes the hooks of a connection. Open and NewConn call it.
func (x *Observer) Observe(info polymq.ConnInfo) *polymq.Hooks {
	c := &conn{Observer: x, peer: peerOf(info)}
	return &polymq.Hooks{
		PublishBegin: c.publishBegin,
		PublishEnd:   c.publishEnd,
		Receive:      c.receive,
		ProcessBegin: c.processBegin,
		ProcessEnd:   c.processEnd,
		Settle:       c.settle,
		Release:      c.release,
		State:        c.state,
	}
}

// conn is a connection that is observed.
type conn struct {
	*Observer
	peer   peer
	labels labels
	lost   bool // guarded by State being called one at a time
}
