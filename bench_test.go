package polymq_test

import (
	"testing"

	"github.com/polymq/polymq"
)

// What the core itself costs, on a backend that costs nothing.

func BenchmarkPublish(b *testing.B) {
	p := publisher(b, newFake(), nil)
	m := &polymq.Message{Key: "k", Header: polymq.Header{"a": "b"}, Body: []byte("body")}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Publish(ctx, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublish100(b *testing.B) {
	p := publisher(b, newFake(), nil)
	msgs := make([]*polymq.Message, 100)
	for i := range msgs {
		msgs[i] = &polymq.Message{ID: "id", Key: "k", Body: []byte("body")}
	}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Publish(ctx, msgs...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublishAsync(b *testing.B) {
	p := publisher(b, newFake(), nil)
	m := &polymq.Message{Key: "k", Body: []byte("body")}
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.PublishAsync(ctx, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReceive(b *testing.B) {
	f := newFake()
	s := subscriber(b, f, nil)
	f.deliver("1")
	held := <-f.queue
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		f.queue <- held
		if _, err := s.Receive(ctx); err != nil {
			b.Fatal(err)
		}
	}
}
