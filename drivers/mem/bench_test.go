package mem

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// nobody does not care for outcomes.
type nobody struct{ failed error }

func (n *nobody) Resolved(p *driver.Publishing) {
	if err := p.Err(); err != nil {
		n.failed = err
	}
}

// loop publishes, receives and acknowledges batches, as a driver sees it.
type loop struct {
	tb    testing.TB
	c     driver.Conn
	p     driver.Publisher
	s     driver.Subscriber
	owner nobody
	batch []*driver.Publishing
	buf   []*driver.Delivery
	ids   int
}

func newLoop(tb testing.TB, size, body int) *loop {
	ctx := context.Background()
	cfg := driver.Config{Logger: slog.New(slog.DiscardHandler), OnState: func(driver.State, error) {}}
	c, err := emulate.New(ctx, connect(tb.Name(), "v", cfg), emulate.Config{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := c.Close(ctx); err != nil {
			tb.Error(err)
		}
		Remove(tb.Name())
	})
	l := &loop{tb: tb, c: c, buf: make([]*driver.Delivery, size)}
	err = c.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "q"}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "q", Key: "a.*.c"}},
	})
	if err != nil {
		tb.Fatal(err)
	}
	if l.p, err = c.Publisher(ctx, driver.PublisherConfig{Exchange: "x"}); err != nil {
		tb.Fatal(err)
	}
	if l.s, err = c.Subscriber(ctx, driver.SubscriberConfig{Queue: "q", Prefetch: size}); err != nil {
		tb.Fatal(err)
	}
	for range size {
		l.batch = append(l.batch, &driver.Publishing{Owner: &l.owner})
	}
	message := &driver.Message{Key: "a.b.c", Body: make([]byte, body)}
	// IDs must differ within the window, and making them is not measured.
	for i := range l.batch {
		l.batch[i].Message = message
	}
	return l
}

func (l *loop) run(ids []string) {
	ctx := context.Background()
	for i, pb := range l.batch {
		pb.Reset(pb.Message, ids[i])
	}
	l.p.Publish(ctx, l.batch, true)
	for got := 0; got < len(l.batch); {
		n, err := l.s.Receive(ctx, l.buf)
		if err != nil {
			l.tb.Fatal(err)
		}
		for _, d := range l.buf[:n] {
			if err := l.s.Settle(ctx, d, driver.Ack, 0); err != nil {
				l.tb.Fatal(err)
			}
		}
		got += n
	}
	if l.owner.failed != nil {
		l.tb.Fatal(l.owner.failed)
	}
}

func (l *loop) freshIDs(n int) []string {
	ids := make([]string, n)
	for i := range ids {
		l.ids++
		ids[i] = fmt.Sprintf("message-%018d", l.ids)
	}
	return ids
}

// BenchmarkLoop is publish, receive and ack of one message, in batches.
func BenchmarkLoop(b *testing.B) {
	for _, size := range []int{1, 100} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := newLoop(b, size, 256)
			ids := l.freshIDs((b.N/size + 1) * size)
			b.ReportAllocs()
			b.ResetTimer()
			for done := 0; done < b.N; done += size {
				l.run(ids[done:])
			}
		})
	}
}
