package mem_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	_ "github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

func open(t testing.TB) *polymq.Conn {
	t.Helper()
	c, err := polymq.Open(t.Context(), "mem://"+t.Name(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	return c
}

func TestRoundTrip(t *testing.T) {
	c := open(t)
	ctx := t.Context()
	err := c.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "q"}, {Name: "dead"}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "q", Key: "a.*"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Publisher(ctx, "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(ctx, &polymq.Message{Key: "a.b", Body: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(ctx, &polymq.Message{Key: "b"}); !errors.Is(err, driver.ErrUnroutable) {
		t.Fatal(err)
	}
	s, err := c.Subscriber(ctx, "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Receive(ctx)
	if err != nil || string(d.Body) != "hello" || d.Attempt != 1 {
		t.Fatal(d, err)
	}
	if err := d.Ack(ctx); err != nil {
		t.Fatal(err)
	}
	_, _, _ = fmt.Sprint, slog.Default, time.Now
}
