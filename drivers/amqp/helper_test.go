package amqp

import (
	"context"
	"io"
	"log/slog"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func openURL(t testing.TB, url string) *Conn {
	t.Helper()
	return openLogged(t, url, slog.NewTextHandler(io.Discard, nil))
}

func openLogged(t testing.TB, url string, log slog.Handler) *Conn {
	t.Helper()
	u, err := driver.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	dc, err := Driver{}.Open(ctxOf(t), u, driver.Config{Logger: slog.New(log), OnState: func(driver.State, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := dc.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return dc.(*Conn)
}

func open(t testing.TB) *Conn { t.Helper(); return openURL(t, testbroker.URL(t, "amqp")) }

// outcome is the owner of one publishing.
type outcome struct{ done chan struct{} }

func (o *outcome) Resolved(*driver.Publishing) { close(o.done) }

func publishing(m driver.Message) *driver.Publishing {
	id := m.ID
	if id == "" {
		id = rndID()
	}
	return &driver.Publishing{Message: &m, ID: id, Owner: &outcome{make(chan struct{})}}
}

func wait(t testing.TB, p *driver.Publishing) error {
	t.Helper()
	select {
	case <-p.Owner.(*outcome).done:
		return p.Err()
	case <-time.After(30 * time.Second):
		t.Fatalf("publishing %s was not resolved", p.ID)
		return nil
	}
}

func publisherOf(t testing.TB, c *Conn, exchange string) driver.Publisher {
	t.Helper()
	p, err := c.Publisher(ctxOf(t), driver.PublisherConfig{Exchange: exchange})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func publish(t testing.TB, p driver.Publisher, m driver.Message) error {
	t.Helper()
	x := publishing(m)
	p.Publish(ctxOf(t), []*driver.Publishing{x}, true)
	return wait(t, x)
}

func subscribe(t testing.TB, c *Conn, queue string, prefetch int) driver.Subscriber {
	t.Helper()
	s, err := c.Subscriber(ctxOf(t), driver.SubscriberConfig{Queue: queue, Prefetch: prefetch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(ctxOf(t)) })
	return s
}

func receive(t testing.TB, s driver.Subscriber) *driver.Delivery {
	t.Helper()
	buf := make([]*driver.Delivery, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	if _, err := s.Receive(ctx, buf); err != nil {
		t.Fatalf("Receive: %v", err)
	}
	return buf[0]
}

func settle(t testing.TB, s driver.Subscriber, d *driver.Delivery, o driver.Outcome) {
	t.Helper()
	if err := s.Settle(ctxOf(t), d, o, 0); err != nil {
		t.Fatalf("Settle: %v", err)
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
