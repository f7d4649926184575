package otelpolymq_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"reflect"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/otelpolymq"
	"github.com/polymq/polymq/routing"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// One trace leads from the publish to the handler and its settlement, and the
// application's message stays as it was.
func TestTraceFromPublishToHandler(t *testing.T) {
	onEach(t, func(t *testing.T, url string) {
		s := newScene(t, url, nil)
		member, _ := baggage.NewMember("tenant", "north")
		bag, _ := baggage.New(member)
		ctx, root := s.tracer.Tracer("test").Start(baggage.ContextWithBaggage(s.ctx, bag), "request")
		header := polymq.Header{"kind": "express"}
		m := &polymq.Message{ID: "m-1", Key: "order.paid", CorrelationID: "c-1", Header: maps.Clone(header), Body: []byte("7")}
		before := *m
		s.do(s.publisher("orders").Publish(ctx, m))
		root.End()
		if !reflect.DeepEqual(*m, before) || !maps.Equal(m.Header, header) {
			t.Errorf("Publish changed the message: %+v", m)
		}

		var inHandler trace.SpanContext
		s.run(s.ctx, "billing", 1, func(ctx context.Context, d *polymq.Delivery) error {
			inHandler = trace.SpanContextFromContext(ctx)
			if got := baggage.FromContext(ctx).Member("tenant").Value(); got != "north" {
				t.Errorf("the handler's baggage is %q", got)
			}
			if d.Header.Get("kind") != "express" {
				t.Errorf("the header arrived as %v", d.Header)
			}
			return nil
		})

		publish, process, ack := s.one("publish orders"), s.one("process billing"), s.one("ack billing")
		if publish.Parent().SpanID() != root.SpanContext().SpanID() || publish.SpanKind() != trace.SpanKindProducer {
			t.Errorf("publish: parent %v, kind %v", publish.Parent().SpanID(), publish.SpanKind())
		}
		if process.Parent().SpanID() != publish.SpanContext().SpanID() || process.SpanKind() != trace.SpanKindConsumer {
			t.Errorf("process: parent %v, kind %v", process.Parent().SpanID(), process.SpanKind())
		}
		if ack.Parent().SpanID() != process.SpanContext().SpanID() || ack.SpanKind() != trace.SpanKindClient {
			t.Errorf("ack: parent %v, kind %v", ack.Parent().SpanID(), ack.SpanKind())
		}
		if inHandler.SpanID() != process.SpanContext().SpanID() || inHandler.TraceID() != root.SpanContext().TraceID() {
			t.Errorf("in the handler: %v", inHandler)
		}
		for _, span := range []sdktrace.ReadOnlySpan{process, ack} {
			wantLinks(t, span, publish)
		}
		wantLinks(t, publish)
		system := "messaging.system=" + systemOf(url)
		wantAttributes(t, publish, system,
			"messaging.operation.name=publish", "messaging.operation.type=send", "messaging.destination.template=orders",
			"messaging.destination.name=orders:order.paid", "messaging.rabbitmq.destination.routing_key=order.paid",
			"messaging.message.id=m-1", "messaging.message.conversation_id=c-1")
		wantAttributes(t, process, system,
			"messaging.operation.name=process", "messaging.operation.type=process", "messaging.destination.template=billing",
			"messaging.destination.name=orders:order.paid:billing", "messaging.rabbitmq.destination.routing_key=order.paid",
			"messaging.message.id=m-1", "messaging.message.conversation_id=c-1")
		wantAttributes(t, ack, system,
			"messaging.operation.name=ack", "messaging.operation.type=settle", "messaging.destination.template=billing",
			"messaging.destination.name=orders:order.paid:billing", "messaging.rabbitmq.destination.routing_key=order.paid",
			"messaging.message.id=m-1", "messaging.message.conversation_id=c-1")
		if len(s.named("receive billing")) > 0 {
			t.Error("Run made a span of its waiting")
		}
	})
}

// wantLinks compares a span's links with the contexts of spans, in order.
func wantLinks(t *testing.T, span sdktrace.ReadOnlySpan, to ...sdktrace.ReadOnlySpan) {
	t.Helper()
	if len(span.Links()) != len(to) {
		t.Fatalf("%s has %d links, want %d", span.Name(), len(span.Links()), len(to))
	}
	for i, l := range span.Links() {
		if l.SpanContext.SpanID() != to[i].SpanContext().SpanID() || l.SpanContext.TraceID() != to[i].SpanContext().TraceID() {
			t.Errorf("%s links to %v, want %s", span.Name(), l.SpanContext.SpanID(), to[i].Name())
		}
	}
}

// Each of several messages has a context of its own, and who deals with several
// links to them.
func TestTraceBatch(t *testing.T) {
	onEach(t, func(t *testing.T, url string) {
		s := newScene(t, url, nil)
		s.do(s.publisher("").Publish(s.ctx,
			&polymq.Message{ID: "1", Key: "plain"}, &polymq.Message{ID: "2", Key: "plain"}, &polymq.Message{ID: "3", Key: "plain"}))
		creates, publish := s.named("create amq.default"), s.one("publish amq.default")
		if len(creates) != 3 || publish.SpanKind() != trace.SpanKindClient {
			t.Fatalf("%d create spans, publish is of kind %v", len(creates), publish.SpanKind())
		}
		wantLinks(t, publish, creates...)
		system := "messaging.system=" + systemOf(url)
		wantAttributes(t, publish, system,
			"messaging.operation.name=publish", "messaging.operation.type=send", "messaging.destination.template=amq.default",
			"messaging.destination.name=plain", "messaging.rabbitmq.destination.routing_key=plain", "messaging.batch.message_count=3")
		wantAttributes(t, creates[1], system,
			"messaging.operation.name=create", "messaging.operation.type=create", "messaging.destination.template=amq.default",
			"messaging.destination.name=plain", "messaging.rabbitmq.destination.routing_key=plain", "messaging.message.id=2")

		sub := s.subscriber("plain", nil)
		var ids []trace.SpanID
		for len(ids) < 3 {
			ds, err := sub.ReceiveBatch(s.ctx, 3)
			s.do(err)
			receive := s.named("receive plain")
			last := receive[len(receive)-1]
			if len(last.Links()) != len(ds) || last.SpanKind() != trace.SpanKindClient {
				t.Fatalf("receive of %d has %d links, kind %v", len(ds), len(last.Links()), last.SpanKind())
			}
			for i, d := range ds {
				ids = append(ids, last.Links()[i].SpanContext.SpanID())
				s.do(d.Ack(s.ctx))
			}
		}
		for i, id := range ids {
			if id != creates[i].SpanContext().SpanID() {
				t.Errorf("delivery %d links to another span than its message's", i)
			}
		}
		if acks := s.named("ack plain"); len(acks) != 3 {
			t.Errorf("%d settle spans", len(acks))
		}
	})
}

func TestTraceWithoutCreateSpans(t *testing.T) {
	s := newScene(t, testbroker.URL(t, "mem"), func(o *otelpolymq.Options) { o.NoCreateSpans = true })
	s.do(s.publisher("orders").Publish(s.ctx, &polymq.Message{Key: "order.a"}, &polymq.Message{Key: "order.b"}))
	publish := s.one("publish orders")
	wantLinks(t, publish)
	wantAttributes(t, publish, "messaging.system=memory",
		"messaging.operation.name=publish", "messaging.operation.type=send", "messaging.destination.template=orders",
		"messaging.destination.name=orders", "messaging.batch.message_count=2")
	s.run(s.ctx, "billing", 2, func(context.Context, *polymq.Delivery) error { return nil })
	for _, process := range s.named("process billing") {
		if process.Parent().SpanID() != publish.SpanContext().SpanID() || publish.SpanKind() != trace.SpanKindProducer {
			t.Errorf("process: parent %v; publish: kind %v", process.Parent(), publish.SpanKind())
		}
	}
}

// Receive of one, on a temporary queue, whose name is in no name of a span.
func TestTraceReceive(t *testing.T) {
	s := newScene(t, testbroker.URL(t, "mem"), nil)
	sub, err := s.conn.SubscribeTemporary(s.ctx, nil, routing.Binding{Exchange: "orders", Key: "#"})
	s.do(err)
	_, err = s.publisher("orders").PublishAsync(s.ctx, &polymq.Message{ID: "1", Key: "order.paid"})
	s.do(err)
	d, err := sub.Receive(s.ctx)
	s.do(err)
	s.do(d.Nack(s.ctx, 0))
	receive := s.one("receive (temporary)")
	wantLinks(t, receive, s.one("publish orders"))
	wantAttributes(t, receive, "messaging.system=memory",
		"messaging.operation.name=receive", "messaging.operation.type=receive", "messaging.destination.template=(temporary)",
		"messaging.destination.temporary=true", "messaging.destination.anonymous=true",
		"messaging.destination.name=orders:order.paid:"+sub.Queue(), "messaging.rabbitmq.destination.routing_key=order.paid",
		"messaging.message.id=1")
	s.one("nack (temporary)")

	ended, cancel := context.WithCancel(s.ctx)
	cancel()
	_, _ = s.subscriber("plain", nil).Receive(ended)
	if n := len(s.named("receive plain")); n != 0 {
		t.Errorf("%d spans of a wait that ctx ended", n)
	}
}

// A context that the message has already is kept, and linked to.
func TestTraceKeepsTheMessagesContext(t *testing.T) {
	s := newScene(t, testbroker.URL(t, "mem"), nil)
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	one := func() *polymq.Message {
		return &polymq.Message{Key: "order.paid", Header: polymq.Header{"traceparent": parent}}
	}
	s.do(s.publisher("orders").Publish(s.ctx, one()))
	s.do(s.publisher("orders").Publish(s.ctx, one(), &polymq.Message{Key: "order.new"}))
	for _, publish := range s.named("publish orders") {
		if got := publish.Links()[0].SpanContext.SpanID().String(); got != "b7ad6b7169203331" || publish.SpanKind() != trace.SpanKindClient {
			t.Errorf("publish links to %s, kind %v", got, publish.SpanKind())
		}
	}
	if n := len(s.named("create orders")); n != 1 {
		t.Errorf("%d create spans, want that of the message that had no context", n)
	}
	kept := 0
	s.run(s.ctx, "billing", 3, func(_ context.Context, d *polymq.Delivery) error {
		if d.Header.Get("traceparent") == parent {
			kept++
		}
		return nil
	})
	if kept != 2 {
		t.Errorf("%d messages kept their context", kept)
	}
}

// Where Run is part of something that is traced, its handlers are, too.
func TestTraceAroundRun(t *testing.T) {
	s := newScene(t, testbroker.URL(t, "mem"), nil)
	s.do(s.publisher("orders").Publish(s.ctx, &polymq.Message{Key: "order.paid"}))
	ctx, around := s.tracer.Tracer("test").Start(s.ctx, "job")
	s.run(ctx, "billing", 1, func(context.Context, *polymq.Delivery) error { return nil })
	around.End()
	process := s.one("process billing")
	if process.Parent().SpanID() != around.SpanContext().SpanID() {
		t.Errorf("the parent is %v", process.Parent())
	}
	wantLinks(t, process, s.one("publish orders"))
}

// errorTypeOf is the span's error.type; "" where it has none.
func errorTypeOf(span sdktrace.ReadOnlySpan) string {
	for _, a := range span.Attributes() {
		if a.Key == "error.type" {
			return a.Value.AsString()
		}
	}
	return ""
}

type brokenPipe struct{}

func (brokenPipe) Error() string { return "broken pipe" }

func TestTraceErrors(t *testing.T) {
	s := newScene(t, testbroker.URL(t, "mem"), nil)
	pub := s.publisher("orders")
	failure := func(name, want string) {
		t.Helper()
		span := s.named(name)[len(s.named(name))-1]
		got := errorTypeOf(span)
		if status := span.Status(); got != want || (status.Code == codes.Error) != (want != "") || (status.Description != "") != (want != "") {
			t.Errorf("%s: error.type %q, status %v, want %q", name, got, status, want)
		}
	}
	_ = pub.Publish(s.ctx, &polymq.Message{Key: "nowhere"})
	failure("publish orders", "unroutable")
	_ = pub.Publish(s.ctx, &polymq.Message{Key: "nowhere"}, &polymq.Message{Key: "nowhere.else"})
	failure("publish orders", "unroutable")
	_ = pub.Publish(s.ctx, &polymq.Message{Key: "nowhere"}, &polymq.Message{Key: "\n"}, nil)
	failure("publish orders", "_OTHER")
	_ = pub.Publish(s.ctx, nil)
	failure("publish orders", "invalid")
	_ = s.publisher("missing").Publish(s.ctx, &polymq.Message{Key: "k"})
	failure("publish missing", "not_found")
	s.do(pub.Publish(s.ctx, &polymq.Message{Key: "order.paid"}))
	failure("publish orders", "")

	for _, c := range []struct {
		err    error
		want   string
		settle string
	}{
		{brokenPipe{}, "github.com/polymq/polymq/otelpolymq_test.brokenPipe", "nack billing"},
		{polymq.RetryAfter(0, errors.Join(io.EOF)), "*errors.joinError", "nack billing"},
		{context.DeadlineExceeded, "timeout", "nack billing"},
		{polymq.Permanent(brokenPipe{}), "github.com/polymq/polymq/otelpolymq_test.brokenPipe", "reject billing"},
	} {
		s.run(s.ctx, "billing", 1, func(context.Context, *polymq.Delivery) error { return c.err })
		failure("process billing", c.want)
		failure(c.settle, "")
	}

	sub := s.subscriber("plain", nil)
	s.do(sub.Close(s.ctx))
	_, _ = sub.Receive(s.ctx)
	failure("receive plain", "closed")
}
