package redis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

var nopLogger = slog.New(slog.DiscardHandler)

func ctxT(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// states records what OnState told.
type states struct {
	mu  sync.Mutex
	all []driver.State
	c   chan driver.State
}

func (s *states) on(st driver.State, _ error) {
	s.mu.Lock()
	s.all = append(s.all, st)
	s.mu.Unlock()
	s.c <- st
}

// dial is a driver.Conn and the store below it.
func dial(t testing.TB, url string) (driver.Conn, *store) {
	conn, s, _ := dialStates(t, url)
	return conn, s
}

func dialStates(t testing.TB, url string) (driver.Conn, *store, *states) {
	t.Helper()
	return dialWith(t, url, func(*config) {})
}

// dialBlocking is of a connection whose reads block for so long that what comes soon
// was not found by looking again.
func dialBlocking(t testing.TB, url string) (driver.Conn, *store) {
	t.Helper()
	conn, s, _ := dialWith(t, url, func(c *config) { c.block = time.Minute })
	return conn, s
}

func dialWith(t testing.TB, url string, change func(*config)) (driver.Conn, *store, *states) {
	t.Helper()
	u, err := driver.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parse(u)
	if err != nil {
		t.Fatal(err)
	}
	change(&cfg)
	st := &states{c: make(chan driver.State, 100)}
	ctx := ctxT(t)
	s, err := open(ctx, cfg, nopLogger, st.on)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := emulate.New(ctx, s, emulate.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := conn.Close(ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return conn, s, st
}

// calls is the client for calls to the server that holds the topology.
func (s *store) calls() *goredis.Client {
	n, err := s.at(s.namespace())
	if err != nil {
		panic(err)
	}
	return n.client
}

// raw is a client beside the driver.
func raw(t testing.TB, url string) *goredis.Client {
	t.Helper()
	u, err := driver.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := parse(u)
	if err != nil {
		t.Fatal(err)
	}
	c := goredis.NewClient(cfg.options(cfg.addrs[0]))
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// safe has the broker sync before it confirms: otherwise even the kill of its
// process alone loses what waits for the sync of the second before.
func safe(t testing.TB, b *testbroker.Broker) {
	t.Helper()
	if err := raw(t, b.URL()).ConfigSet(ctxT(t), "appendfsync", "always").Err(); err != nil {
		t.Fatal(err)
	}
}

func declare(t testing.TB, conn driver.Conn, queues ...string) {
	t.Helper()
	var topo routing.Topology
	for _, q := range queues {
		topo.Queues = append(topo.Queues, routing.Queue{Name: q})
	}
	if err := conn.Declare(ctxT(t), topo); err != nil {
		t.Fatal(err)
	}
}

type waiter struct{ c chan *driver.Publishing }

func (w waiter) Resolved(p *driver.Publishing) { w.c <- p }

// publish sends messages to a queue and returns the first error.
func publish(t testing.TB, conn driver.Conn, queue string, ms ...*driver.Message) error {
	t.Helper()
	return publishCtx(ctxT(t), t, conn, queue, ms...)
}

var ids sync.Mutex
var lastID int

func newID() string {
	ids.Lock()
	defer ids.Unlock()
	lastID++
	return fmt.Sprintf("generated-%d", lastID)
}

func publishCtx(ctx context.Context, t testing.TB, conn driver.Conn, queue string, ms ...*driver.Message) error {
	t.Helper()
	p, err := conn.Publisher(ctx, driver.PublisherConfig{})
	if err != nil {
		return err
	}
	w := waiter{make(chan *driver.Publishing, len(ms))}
	var batch []*driver.Publishing
	for _, m := range ms {
		m.Key = queue
		id := m.ID
		if id == "" {
			id = newID()
		}
		batch = append(batch, &driver.Publishing{Message: m, ID: id, Owner: w})
	}
	p.Publish(ctx, batch, true)
	for range ms {
		select {
		case p := <-w.c:
			if e := p.Err(); e != nil && err == nil {
				err = e
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return err
}

func text(body string) *driver.Message { return &driver.Message{Body: []byte(body)} }

func subscribe(t testing.TB, conn driver.Conn, queue string, prefetch int) driver.Subscriber {
	t.Helper()
	sub, err := conn.Subscriber(ctxT(t), driver.SubscriberConfig{Queue: queue, Prefetch: prefetch})
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func receive(t testing.TB, sub driver.Subscriber) *driver.Delivery {
	t.Helper()
	buf := make([]*driver.Delivery, 1)
	if _, err := sub.Receive(ctxT(t), buf); err != nil {
		t.Fatal(err)
	}
	return buf[0]
}

// expect receives messages with these bodies, in order.
func expect(t testing.TB, sub driver.Subscriber, bodies ...string) []*driver.Delivery {
	t.Helper()
	var ds []*driver.Delivery
	for i, want := range bodies {
		d := receive(t, sub)
		if string(d.Message.Body) != want {
			t.Fatalf("message %d: got %q, want %q", i, d.Message.Body, want)
		}
		ds = append(ds, d)
	}
	return ds
}

func settle(t testing.TB, sub driver.Subscriber, o driver.Outcome, ds ...*driver.Delivery) {
	t.Helper()
	for _, d := range ds {
		if err := sub.Settle(ctxT(t), d, o, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// info waits until Inspect answers want: settlements take a moment.
func info(t testing.TB, conn driver.Conn, queue string, want driver.QueueInfo) {
	t.Helper()
	ctx := ctxT(t)
	for {
		got, err := conn.Inspect(ctx, queue)
		if err == nil && got == want {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("Inspect: got %+v, %v, want %+v", got, err, want)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
