package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

var everywhere = []string{"mem", "amqp", "nats", "redis"}

// serve runs a handler on the queue "calls" until the test ends.
func serve(t *testing.T, conn *polymq.Conn, h polymq.Handler) {
	t.Helper()
	sub, err := conn.Subscriber(t.Context(), "calls", &polymq.SubscriberOptions{Concurrency: 8, Backoff: func(int) time.Duration { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sub.Run(ctx, h) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run of the server: %v", err)
		}
	})
}

func requester(t *testing.T, conn *polymq.Conn) *polymq.Requester {
	t.Helper()
	r, err := conn.Requester(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// callable is two connections to a namespace with a queue for calls and its
// dead letters.
func callable(t *testing.T, url string) (server, client *polymq.Conn) {
	t.Helper()
	server, client = open(t, url), open(t, url)
	declare(t, server, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "dead", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "calls", DeadLetterExchange: "dead"}, {Name: "graveyard"}},
		Bindings:  []routing.Binding{{Exchange: "dead", Queue: "graveyard"}},
	})
	return server, client
}

type sum struct{ A, B int }

func add(ctx context.Context, d *polymq.Delivery, s sum) (int, error) {
	switch {
	case s.A < 0:
		return 0, fmt.Errorf("%d is negative", s.A)
	case s.B < 0:
		return 0, polymq.Permanent(fmt.Errorf("%d is negative, once and for all", s.B))
	case s.A == 1000 && d.Attempt == 1:
		return 0, polymq.RetryAfter(0, errors.New("not at the first attempt"))
	}
	return s.A + s.B, nil
}

func TestRequestReply(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			url := testbroker.URL(t, scheme)
			server, client := callable(t, url)
			serve(t, server, polymq.TypedResponder(add))
			r := requester(t, client)
			adder := polymq.NewTypedRequester[sum, int](r, nil)
			dead := subscriber(t, client, "graveyard", 10)
			ctx := within(t, time.Minute)

			t.Run("many at once", func(t *testing.T) {
				var wg sync.WaitGroup
				for i := range 200 {
					wg.Go(func() {
						if got, err := adder.Call(ctx, polymq.Message{Key: "calls"}, sum{i, 2 * i}); err != nil || got != 3*i {
							t.Errorf("%d + %d: %d, %v", i, 2*i, got, err)
						}
					})
				}
				wg.Wait()
			})
			t.Run("unroutable", func(t *testing.T) {
				_, err := adder.Call(ctx, polymq.Message{Key: "nobody"}, sum{})
				if !errors.Is(err, polymq.ErrUnroutable) {
					t.Errorf("got %v, want ErrUnroutable", err)
				}
			})
			t.Run("errors", func(t *testing.T) {
				_, err := adder.Call(ctx, polymq.Message{Key: "calls"}, sum{-1, 0})
				if remote, ok := errors.AsType[*polymq.RemoteError](err); !ok || remote.Text != "-1 is negative" {
					t.Errorf("got %v", err)
				}
				_, err = adder.Call(ctx, polymq.Message{Key: "calls", ID: "hopeless"}, sum{0, -1})
				if remote, ok := errors.AsType[*polymq.RemoteError](err); !ok || remote.Text != "-1 is negative, once and for all" {
					t.Errorf("got %v", err)
				}
				_, err = r.Call(ctx, &polymq.Message{Key: "calls", ID: "garbled", ContentType: "application/json", Body: []byte("{")})
				if remote, ok := errors.AsType[*polymq.RemoteError](err); !ok || !strings.Contains(remote.Text, "cannot be decoded") {
					t.Errorf("got %v", err)
				}
				// What is permanent is a dead letter beside.
				for want := map[string]bool{"hopeless": true, "garbled": true}; len(want) > 0; {
					d, err := dead.Receive(ctx)
					if err != nil || !want[d.ID] {
						t.Fatalf("dead letter %v %v, want one of %v", d, err, want)
					}
					delete(want, d.ID)
					if err := d.Ack(ctx); err != nil {
						t.Error(err)
					}
				}
				if got, err := adder.Call(ctx, polymq.Message{Key: "calls"}, sum{1000, 1}); err != nil || got != 1001 {
					t.Errorf("at the second attempt: %d, %v", got, err)
				}
				_, err = r.Call(ctx, &polymq.Message{Key: "calls", CorrelationID: "mine"})
				if !errors.Is(err, polymq.ErrInvalid) {
					t.Errorf("got %v, want ErrInvalid", err)
				}
			})
			t.Run("one way", func(t *testing.T) {
				// Without ReplyTo it is handled like any message.
				if err := publisher(t, client, "").Publish(ctx, &polymq.Message{Key: "calls", ID: "one way", Body: []byte(`{"B":-1}`)}); err != nil {
					t.Fatal(err)
				}
				if d, err := dead.Receive(ctx); err != nil || d.ID != "one way" {
					t.Errorf("dead letter %v %v", d, err)
				}
			})
			t.Run("close", func(t *testing.T) {
				if err := r.Close(ctx); err != nil {
					t.Fatal(err)
				}
				if _, err := adder.Call(ctx, polymq.Message{Key: "calls"}, sum{}); !errors.Is(err, polymq.ErrClosed) {
					t.Errorf("got %v, want ErrClosed", err)
				}
			})
		})
	}
}

// lines hands on the messages of a log.
type lines struct {
	slog.Handler
	to chan string
}

func (l lines) Handle(_ context.Context, r slog.Record) error {
	select {
	case l.to <- r.Message:
	default:
	}
	return nil
}

func logged(t *testing.T, url string) (*polymq.Conn, <-chan string) {
	t.Helper()
	to := make(chan string, 1000)
	logger := slog.New(lines{slog.NewTextHandler(t.Output(), nil), to})
	conn, err := polymq.Open(t.Context(), url, &polymq.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return conn, to
}

func awaitLine(t *testing.T, ctx context.Context, in <-chan string, want string) {
	t.Helper()
	for {
		select {
		case line := <-in:
			if strings.Contains(line, want) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("no line in the log says %q", want)
		}
	}
}

// A caller that gave up gets no reply any more, and one that is gone holds up
// nobody.
func TestRequestReplyTooLate(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			url := testbroker.URL(t, scheme)
			callable(t, url)
			server, serverLog := logged(t, url)
			client, clientLog := logged(t, url)
			gate := make(chan struct{})
			begun := make(chan struct{}, 10)
			serve(t, server, polymq.Responder(func(_ context.Context, d *polymq.Delivery) (*polymq.Message, error) {
				if string(d.Body) == "wait" {
					begun <- struct{}{}
					<-gate
				}
				return &polymq.Message{Body: d.Body}, nil
			}))
			r := requester(t, client)
			ctx := within(t, time.Minute)

			short, cancel := context.WithCancel(ctx)
			go func() {
				<-begun
				cancel()
			}()
			_, err := r.Call(short, &polymq.Message{Key: "calls", Body: []byte("wait")})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("got %v, want the end of ctx", err)
			}
			gate <- struct{}{}
			awaitLine(t, ctx, clientLog, "nobody waits for")
			if reply, err := r.Call(ctx, &polymq.Message{Key: "calls", Body: []byte("now")}); err != nil || string(reply.Body) != "now" {
				t.Errorf("after a late reply: %v %v", reply, err)
			}

			ended := make(chan error, 1)
			go func() {
				_, err := r.Call(ctx, &polymq.Message{Key: "calls", Body: []byte("wait")})
				ended <- err
			}()
			<-begun
			if err := r.Close(ctx); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; !errors.Is(err, polymq.ErrClosed) {
				t.Errorf("a call that waits as its requester closes: %v, want ErrClosed", err)
			}
			gate <- struct{}{}
			awaitLine(t, ctx, serverLog, "the caller is gone")
			r = requester(t, client)
			if reply, err := r.Call(ctx, &polymq.Message{Key: "calls", Body: []byte("again")}); err != nil || string(reply.Body) != "again" {
				t.Errorf("after a caller that was gone: %v %v", reply, err)
			}
		})
	}
}

// The caller's connection is cut while a call waits: the queue for replies is made
// anew, empty, so the call ends, at once and not with its ctx; and new calls work.
func TestRequestReplyReconnects(t *testing.T) {
	for _, scheme := range everywhere[1:] {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			url := testbroker.URL(t, scheme)
			server, _ := callable(t, url)
			link := testbroker.Proxy(t, url)
			client := open(t, link.URL())
			gate, begun := make(chan struct{}), make(chan struct{}, 100)
			serve(t, server, polymq.Responder(func(_ context.Context, d *polymq.Delivery) (*polymq.Message, error) {
				if string(d.Body) == "wait" {
					begun <- struct{}{}
					<-gate
				}
				return &polymq.Message{Body: d.Body}, nil
			}))
			r := requester(t, client)
			ctx := within(t, 2*time.Minute)
			waiting := make(chan error, 1)
			go func() {
				_, err := r.Call(context.Background(), &polymq.Message{Key: "calls", Body: []byte("wait")})
				waiting <- err
			}()
			<-begun
			link.Cut()
			select {
			case err := <-waiting:
				if !errors.Is(err, polymq.ErrNoReply) {
					t.Errorf("the call that waited over the cut: %v, want ErrNoReply", err)
				}
			case <-ctx.Done():
				t.Fatal("the call that waited over the cut has not ended")
			}
			if reply, err := r.Call(ctx, &polymq.Message{Key: "calls", Body: []byte("now")}); err != nil || string(reply.Body) != "now" {
				t.Errorf("a call after the cut: %v %v", reply, err)
			}
			close(gate)
		})
	}
}
