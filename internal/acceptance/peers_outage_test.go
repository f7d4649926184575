package acceptance_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

func subscribeWhileAway(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, testbroker.URL(t, scheme))
	conn := open(t, link.URL())
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	send(t, ctx, publisher(t, conn, ""), "q", "waiting")
	link.Refuse(true)
	link.Cut()
	type result struct {
		sub *polymq.Subscriber
		err error
	}
	made := make(chan result, 1)
	go func() {
		sub, err := conn.Subscriber(ctx, "q", nil)
		made <- result{sub, err}
	}()
	select {
	case r := <-made:
		t.Fatalf("Subscriber returned %v while the broker was away", r.err)
	case <-time.After(time.Second): // how long the broker is away
	}
	link.Refuse(false)
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	if got := take(t, ctx, r.sub); got != "waiting" {
		t.Errorf("received %q", got)
	}
}

// closeAmidEverything closes a connection from several sides while it publishes,
// receives, settles and is cut off. TestMain looks for goroutines that are left.
func closeAmidEverything(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, leased(scheme, testbroker.URL(t, scheme)))
	declare(t, open(t, link.URL()), plain)
	ctx := within(t, 2*time.Minute)
	for round := range 4 {
		conn, err := polymq.Open(ctx, link.URL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 20)
		running, err := conn.Subscriber(ctx, "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		var busy, closing sync.WaitGroup
		var began atomic.Int64
		for range 3 {
			busy.Go(func() {
				for pub.Publish(ctx, &polymq.Message{Key: "q"}) == nil {
					began.Add(1)
				}
			})
			busy.Go(func() {
				for {
					if _, err := pub.PublishAsync(ctx, &polymq.Message{Key: "q"}); err != nil {
						return
					}
				}
			})
		}
		busy.Go(func() {
			for {
				d, err := sub.Receive(ctx)
				if err != nil {
					return
				}
				_ = d.Ack(ctx) // the hold may be lost
			}
		})
		busy.Go(func() { _ = running.Run(ctx, func(context.Context, *polymq.Delivery) error { return nil }) })
		await(t, ctx, "publishing", func() bool { return began.Load() > 50 })
		switch round {
		case 1:
			link.Cut()
		case 2:
			link.Refuse(true)
			link.Cut()
		case 3:
			link.Stall(true)
		}
		ended := make(chan struct{})
		limit := 2 * time.Second
		if round == 0 { // nothing keeps it from ending well
			limit = time.Minute
		}
		for range 3 {
			closing.Go(func() {
				short, cancel := context.WithTimeout(ctx, limit)
				defer cancel()
				err := conn.Close(short)
				if round < 1 && err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		closing.Go(func() { _ = sub.Close(within(t, 2*time.Second)) })
		go func() {
			closing.Wait()
			busy.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(limit + time.Minute):
			t.Fatalf("round %d: something has not ended a minute after Close", round)
		}
		link.Refuse(false)
		link.Stall(false)
	}
}

// outcomesStayTheirOwn publishes what is routed beside what is not, while the
// connection is cut again and again.
func outcomesStayTheirOwn(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, testbroker.URL(t, scheme))
	conn := open(t, link.URL())
	declare(t, conn, plain)
	ctx := within(t, 2*time.Minute)
	pub := publisher(t, conn, "")
	var done atomic.Int64
	var wg sync.WaitGroup
	over := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				m := &polymq.Message{Key: "q"}
				if (i+w)%2 == 0 {
					m.Key = "nowhere"
				}
				err := pub.Publish(ctx, m)
				right := err == nil
				if m.Key == "nowhere" { // unknown where an earlier try was cut off
					right = errors.Is(err, polymq.ErrUnroutable) || errors.Is(err, polymq.ErrUnconfirmed)
				}
				if !right {
					t.Errorf("to %s: %v", m.Key, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for range 10 {
		n := done.Load()
		await(t, ctx, "publishing", func() bool { return t.Failed() || done.Load() >= n+40 })
		link.Cut()
	}
	close(over)
	wg.Wait()
}

// records counts what is logged.
type records struct{ n *atomic.Int64 }

func (records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) Handle(context.Context, slog.Record) error {
	r.n.Add(1)
	return nil
}
func (r records) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r records) WithGroup(string) slog.Handler      { return r }

// outageIsQuiet: while the broker is away nothing is tried, or logged, without a
// pause.
func outageIsQuiet(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, testbroker.URL(t, scheme))
	ctx := within(t, time.Minute)
	var logged atomic.Int64
	conn, err := polymq.Open(ctx, link.URL(), &polymq.Options{Logger: slog.New(records{&logged})})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	declare(t, conn, plain)
	pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 5)
	send(t, ctx, pub, "q", "before")
	take(t, ctx, sub)
	link.Refuse(true)
	link.Cut()
	away, cancel := context.WithTimeout(ctx, 2*time.Second) // how long the broker is away
	defer cancel()
	if _, err := sub.Receive(away); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive while the broker is away: %v", err)
	}
	if n := logged.Load(); n > 100 {
		t.Errorf("%d records were logged in two seconds", n)
	}
	link.Refuse(false)
	send(t, ctx, pub, "q", "after")
	take(t, ctx, sub)
}
