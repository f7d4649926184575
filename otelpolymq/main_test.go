package otelpolymq_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/otelpolymq"
	"github.com/polymq/polymq/routing"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// onEach runs f on every backend.
func onEach(t *testing.T, f func(t *testing.T, url string)) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) { f(t, testbroker.URL(t, scheme)) })
	}
}

var systems = map[string]string{"mem": "memory", "amqp": "rabbitmq", "nats": "nats", "redis": "redis"}

func systemOf(url string) string {
	scheme, _, _ := strings.Cut(url, ":")
	return systems[scheme]
}

// scene is an observed connection with the exchange orders, and the queues
// billing, which takes order.*, and plain.
type scene struct {
	t        *testing.T
	ctx      context.Context
	spans    *tracetest.InMemoryExporter
	tracer   *sdktrace.TracerProvider
	reader   *sdkmetric.ManualReader
	observer *otelpolymq.Observer
	conn     *polymq.Conn
	states   chan polymq.State // each after it was observed
}

func newScene(t *testing.T, url string, change func(*otelpolymq.Options)) *scene {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	s := &scene{t: t, ctx: ctx, spans: tracetest.NewInMemoryExporter(), reader: sdkmetric.NewManualReader(), states: make(chan polymq.State, 100)}
	s.tracer = sdktrace.NewTracerProvider(sdktrace.WithSyncer(s.spans))
	opts := &otelpolymq.Options{
		TracerProvider: s.tracer,
		MeterProvider:  sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader)),
		Propagator:     propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}),
	}
	if change != nil {
		change(opts)
	}
	var err error
	if s.observer, err = otelpolymq.New(opts); err != nil {
		t.Fatal(err)
	}
	last := &polymq.Hooks{State: func(st polymq.State, _ error) { s.states <- st }}
	s.conn, err = polymq.Open(ctx, url, &polymq.Options{Observers: []polymq.Observer{last, s.observer}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.conn.Close(context.Background()) })
	s.do(s.conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing"}, {Name: "plain"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*"}},
	}))
	return s
}

func (s *scene) do(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *scene) publisher(exchange string) *polymq.Publisher {
	s.t.Helper()
	p, err := s.conn.Publisher(s.ctx, exchange, nil)
	s.do(err)
	return p
}

func (s *scene) subscriber(queue string, opts *polymq.SubscriberOptions) *polymq.Subscriber {
	s.t.Helper()
	sub, err := s.conn.Subscriber(s.ctx, queue, opts)
	s.do(err)
	return sub
}

// run handles n deliveries and returns when all are settled.
func (s *scene) run(ctx context.Context, queue string, n int, h polymq.Handler) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sub := s.subscriber(queue, &polymq.SubscriberOptions{Backoff: func(int) time.Duration { return 0 }})
	s.do(sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		if n--; n == 0 {
			cancel()
		}
		return h(ctx, d)
	}))
}

// named are the ended spans of that name.
func (s *scene) named(name string) []sdktrace.ReadOnlySpan {
	var out []sdktrace.ReadOnlySpan
	for _, span := range s.spans.GetSpans().Snapshots() {
		if span.Name() == name {
			out = append(out, span)
		}
	}
	return out
}

// one is the only ended span of that name.
func (s *scene) one(name string) sdktrace.ReadOnlySpan {
	s.t.Helper()
	spans := s.named(name)
	if len(spans) != 1 {
		var names []string
		for _, span := range s.spans.GetSpans().Snapshots() {
			names = append(names, span.Name())
		}
		s.t.Fatalf("%d spans %q among %q, want one", len(spans), name, names)
	}
	return spans[0]
}

// wantAttributes are the span's without those of the server, which tests put
// elsewhere each time.
func wantAttributes(t *testing.T, span sdktrace.ReadOnlySpan, want ...string) {
	t.Helper()
	var got []string
	server := false
	for _, a := range span.Attributes() {
		if strings.HasPrefix(string(a.Key), "server.") {
			server = true
			continue
		}
		got = append(got, fmt.Sprintf("%s=%s", a.Key, a.Value.String()))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("%s has the attributes\n\t%s\nwant\n\t%s", span.Name(), strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	if memory := slices.Contains(want, "messaging.system=memory"); server == memory {
		t.Errorf("%s: server.address is there: %v", span.Name(), server)
	}
}

// number is the sum of a metric's points that have all these attributes, or of
// a histogram's the count; false where there are none.
func (s *scene) number(name string, attrs ...attribute.KeyValue) (int64, bool) {
	s.t.Helper()
	var rm metricdata.ResourceMetrics
	s.do(s.reader.Collect(s.ctx, &rm))
	var sum int64
	found := false
	add := func(set attribute.Set, n int64) {
		for _, a := range attrs {
			if v, ok := set.Value(a.Key); !ok || v != a.Value {
				return
			}
		}
		sum, found = sum+n, true
	}
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			if m.Name != name {
				continue
			}
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, p.Value)
				}
			case metricdata.Histogram[float64]:
				for _, p := range data.DataPoints {
					add(p.Attributes, int64(p.Count))
				}
			default:
				s.t.Fatalf("%s is a %T", name, data)
			}
		}
	}
	return sum, found
}

func (s *scene) wantNumber(want int64, name string, attrs ...attribute.KeyValue) {
	s.t.Helper()
	if got, found := s.number(name, attrs...); got != want || !found {
		s.t.Errorf("%s %v: %d (found %v), want %d", name, attrs, got, found, want)
	}
}
