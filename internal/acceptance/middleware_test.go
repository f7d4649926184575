package acceptance_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/middleware"
	"github.com/polymq/polymq/routing"
)

type step struct {
	Key string
	N   int
	Pad string
}

// All middleware at once, in the documented order, on every backend: what is
// compressed arrives as it was; a key keeps its order; a message that was
// published twice is handled once; what is permanent, and what panics to its last
// attempt, is a dead letter with the reason and the stack, and comes back by
// Redrive.
func TestMiddlewareStack(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			conn := open(t, testbroker.URL(t, scheme))
			declare(t, conn, routing.Topology{
				Exchanges: []routing.Exchange{{Name: "dead", Kind: routing.Fanout}},
				Queues:    []routing.Queue{{Name: "work", DeadLetterExchange: "dead"}, {Name: "graveyard"}},
				Bindings:  []routing.Binding{{Exchange: "dead", Queue: "graveyard"}},
			})
			ctx := within(t, 2*time.Minute)
			pub, err := conn.Publisher(ctx, "", &polymq.PublisherOptions{Middleware: []polymq.PublishMiddleware{
				middleware.CorrelatePublish(), middleware.Compress(middleware.Gzip, nil), middleware.ThrottlePublish(rate.NewLimiter(10_000, 100))}})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			handled := map[string][]int{}
			var healed atomic.Bool
			total := make(chan struct{}, 1000)
			handler := polymq.Typed(func(ctx context.Context, d *polymq.Delivery, s step) error {
				if middleware.CorrelationID(ctx) != "batch 1" || d.ContentEncoding != "" || len(s.Pad) != 2000 {
					t.Errorf("%s %d: correlation %q, encoding %q, %d bytes", s.Key, s.N, middleware.CorrelationID(ctx), d.ContentEncoding, len(s.Pad))
				}
				if s.Key == "panics" && !healed.Load() {
					panic("out of paper")
				}
				mu.Lock()
				handled[s.Key] = append(handled[s.Key], s.N)
				mu.Unlock()
				total <- struct{}{}
				return nil
			})
			sub, err := conn.Subscriber(ctx, "work", &polymq.SubscriberOptions{
				Concurrency: 4, Prefetch: 40,
				OrderBy: func(d *polymq.Delivery) string { return d.Header.Get("key") },
				Backoff: func(int) time.Duration { return 0 },
				Middleware: []polymq.Middleware{
					middleware.Log(slog.New(slog.DiscardHandler), slog.LevelInfo),
					middleware.Correlate(),
					middleware.DeadLetter(publisher(t, conn, "dead").Publish, &middleware.DeadLetterOptions{MaxAttempts: 2}),
					middleware.Recover(),
					middleware.Deduplicate(middleware.NewMemoryDedup(0), &middleware.DedupOptions{Key: func(d *polymq.Delivery) string { return d.Header.Get("once") }}),
					middleware.Throttle(rate.NewLimiter(10_000, 100)),
					middleware.Retry(2, nil),
					middleware.Timeout(time.Minute),
					middleware.Decompress(nil),
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			run, stop := context.WithCancel(ctx)
			ended := make(chan error, 1)
			go func() { ended <- sub.Run(run, handler) }()
			t.Cleanup(func() {
				stop()
				if err := <-ended; err != nil {
					t.Errorf("Run: %v", err)
				}
			})

			batch := middleware.WithCorrelationID(ctx, "batch 1")
			steps := polymq.NewTypedPublisher[step](pub, nil)
			publish := func(key string, n int) {
				t.Helper()
				m := polymq.Message{Key: "work", Header: polymq.Header{"key": key, "once": fmt.Sprint(key, n)}}
				if err := steps.Publish(batch, m, step{key, n, strings.Repeat("x", 2000)}); err != nil {
					t.Fatal(err)
				}
			}
			publish("panics", 0)
			garbled := &polymq.Message{ID: "garbled", Key: "work", Body: []byte("{"), Header: polymq.Header{"key": "garbled", "once": "garbled"}}
			if err := pub.Publish(batch, garbled); err != nil {
				t.Fatal(err)
			}
			const keys, each = 4, 10
			for n := range each {
				for k := range keys {
					publish(fmt.Sprint("key ", k), n)
					if n%5 == 0 {
						publish(fmt.Sprint("key ", k), n) // once more
					}
				}
			}
			await := func(n int) {
				t.Helper()
				for range n {
					select {
					case <-total:
					case <-ctx.Done():
						mu.Lock()
						defer mu.Unlock()
						t.Fatalf("handled only %v", handled)
					}
				}
			}
			await(keys * each)

			dead, err := conn.Subscriber(ctx, "graveyard", nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				d, err := dead.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				text, stack, deaths := d.Header.Get(polymq.HeaderError), d.Header.Get(middleware.HeaderStack), d.Deaths()
				want, reason, inStack := "panic: out of paper", "delivery_limit", "TestMiddlewareStack"
				if d.Header.Get(middleware.HeaderFirstID) == "garbled" {
					want, reason, inStack = "cannot be decoded", "rejected", ""
				}
				if !strings.Contains(text, want) || !strings.Contains(stack, inStack) || len(deaths) != 1 || deaths[0].Queue != "work" || deaths[0].Reason != reason {
					t.Errorf("dead letter %s: %s, %+v, stack of %d bytes", d.ID, text, deaths, len(stack))
				}
			}
			if err := dead.Close(ctx); err != nil { // gives them back
				t.Fatal(err)
			}
			healed.Store(true)
			for _, opts := range []polymq.RedriveOptions{{Max: 1, Idle: time.Minute}, {}} { // one message, and no other
				opts.Filter = func(d *polymq.Delivery) bool { return d.Header.Get(middleware.HeaderFirstID) != "garbled" }
				if moved, err := conn.Redrive(ctx, "graveyard", &opts); err != nil || moved != opts.Max {
					t.Fatalf("Redrive: %d, %v, want %d", moved, err, opts.Max)
				}
			}
			await(1)
			mu.Lock()
			defer mu.Unlock()
			for key, ns := range handled {
				for i, n := range ns {
					if n != i {
						t.Errorf("%s was handled in the order %v", key, ns)
						break
					}
				}
			}
			if len(handled) != keys+1 || len(total) > 0 {
				t.Errorf("handled too much: %v", handled)
			}
		})
	}
}

// Two queues get the same message, and neither handler can do with it: both dead
// letters arrive in the queue that they share, and each goes back where it died.
func TestDeadLettersShareAQueue(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			conn := open(t, testbroker.URL(t, scheme))
			ctx := within(t, time.Minute)
			declare(t, conn, routing.Topology{
				Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Fanout}, {Name: "dead", Kind: routing.Fanout}},
				Queues:    []routing.Queue{{Name: "bills"}, {Name: "parcels"}, {Name: "graveyard"}},
				Bindings:  []routing.Binding{{Exchange: "orders", Queue: "bills"}, {Exchange: "orders", Queue: "parcels"}, {Exchange: "dead", Queue: "graveyard"}},
			})
			if err := publisher(t, conn, "orders").Publish(ctx, &polymq.Message{ID: "one"}); err != nil {
				t.Fatal(err)
			}
			handle := polymq.Chain(func(context.Context, *polymq.Delivery) error { return polymq.Permanent(io.EOF) },
				middleware.DeadLetter(publisher(t, conn, "dead").Publish, nil))
			subs := []*polymq.Subscriber{subscriber(t, conn, "bills", 1), subscriber(t, conn, "parcels", 1)}
			for _, s := range subs {
				d, err := s.Receive(ctx)
				if err == nil {
					err = handle(ctx, d)
				}
				if err == nil {
					err = d.Ack(ctx)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if moved, err := conn.Redrive(ctx, "graveyard", &polymq.RedriveOptions{Max: 2, Idle: time.Minute}); err != nil || moved != 2 {
				t.Fatalf("Redrive: %d, %v", moved, err)
			}
			for _, s := range subs {
				d, err := s.Receive(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if d.Header.Get(middleware.HeaderFirstID) != "one" {
					t.Errorf("%s has %s again", s.Queue(), d.ID)
				}
			}
		})
	}
}

// A message whose handler still cannot do with it goes back once: its next dead letter,
// which has another ID, stays.
func TestRedriveOfWhatDiesAgain(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			conn := open(t, testbroker.URL(t, scheme))
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "work"}, {Name: "graveyard"}}})
			pub := publisher(t, conn, "")
			sub, err := conn.Subscriber(t.Context(), "work", &polymq.SubscriberOptions{Middleware: []polymq.Middleware{
				middleware.DeadLetter(pub.Publish, &middleware.DeadLetterOptions{Key: "graveyard"}),
			}})
			if err != nil {
				t.Fatal(err)
			}
			ctx, stop := context.WithCancel(within(t, time.Minute))
			handled, ended := make(chan struct{}, 100), make(chan error, 1)
			go func() {
				ended <- sub.Run(ctx, func(context.Context, *polymq.Delivery) error {
					handled <- struct{}{}
					return polymq.Permanent(io.EOF)
				})
			}()
			if err := pub.Publish(ctx, &polymq.Message{Key: "work"}); err != nil {
				t.Fatal(err)
			}
			<-handled
			await(t, ctx, "the dead letter is there", func() bool {
				info, err := conn.Inspect(ctx, "graveyard")
				return err == nil && info.Ready == 1
			})
			// It waits for the second one as well.
			moved, err := conn.Redrive(ctx, "graveyard", &polymq.RedriveOptions{Max: 20, Idle: 2 * time.Second})
			if err != nil || moved != 1 {
				t.Errorf("moved %d, %v", moved, err)
			}
			select {
			case <-handled:
			case <-ctx.Done():
				t.Error("not handled again")
			}
			if stop(); len(handled) > 0 {
				t.Errorf("handled %d times more", len(handled))
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}
