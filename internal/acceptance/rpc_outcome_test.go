package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// around is a requester whose requests are published by what f makes of a publish.
func around(t *testing.T, conn *polymq.Conn, f func(publish func() error) error) *polymq.Requester {
	t.Helper()
	r, err := conn.Requester(t.Context(), "", &polymq.RequesterOptions{Middleware: []polymq.PublishMiddleware{
		func(next polymq.PublishFunc) polymq.PublishFunc {
			return func(ctx context.Context, msgs ...*polymq.Message) error {
				return f(func() error { return next(ctx, msgs...) })
			}
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// A call whose ctx ends says what is known of its request: that it was not sent, or
// that it is stored. The two had one error.
func TestCallEndedSaysWhatIsKnown(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			conn := open(t, testbroker.URL(t, scheme))
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "calls"}}})
			call := func(f func(publish func() error, end func()) error) error {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				r := around(t, conn, func(publish func() error) error { return f(publish, cancel) })
				_, err := r.Call(ctx, &polymq.Message{Key: "calls"})
				if !errors.Is(err, context.Canceled) || errors.Is(err, polymq.ErrUnconfirmed) {
					t.Errorf("%v, want context.Canceled and not ErrUnconfirmed", err)
				}
				return err
			}
			if err := call(func(publish func() error, end func()) error {
				end()
				return publish()
			}); errors.Is(err, polymq.ErrNoReply) {
				t.Errorf("of a call that was not sent: %v, which is ErrNoReply", err)
			}
			if err := call(func(publish func() error, end func()) error {
				defer end()
				return publish()
			}); !errors.Is(err, polymq.ErrNoReply) {
				t.Errorf("of a call that is stored: %v, want ErrNoReply", err)
			}
		})
	}
}

// What a publish ended with is not forgotten because the replies' queue was lost
// meanwhile: a request that was refused, or not sent, is not one whose reply got lost.
func TestCallRefusedAfterReconnect(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			ctx := within(t, time.Minute)
			conn, sever := severed(t, testbroker.URL(t, scheme))
			declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "calls"}}})
			stored, lost := make(chan struct{}), make(chan error, 1)
			r := around(t, conn, func(publish func() error) error {
				select {
				case <-stored:
					sever()
					if err := <-lost; !errors.Is(err, polymq.ErrNoReply) {
						t.Errorf("the call that waited over the cut: %v, want ErrNoReply", err)
					}
				default:
					defer close(stored)
				}
				return publish()
			})
			go func() {
				_, err := r.Call(ctx, &polymq.Message{Key: "calls"})
				lost <- err
			}()
			<-stored
			if _, err := r.Call(ctx, &polymq.Message{Key: "nowhere"}); !errors.Is(err, polymq.ErrUnroutable) {
				t.Errorf("a call that nothing takes: %v, want ErrUnroutable", err)
			}
		})
	}
}

// settlements hears of each that a connection makes.
type settlements chan struct{}

func (s settlements) Observe(polymq.ConnInfo) *polymq.Hooks {
	return &polymq.Hooks{Settle: func(context.Context, polymq.SettleEvent) { s <- struct{}{} }}
}

// A reply that is here is the outcome, although the call's ctx has ended meanwhile.
func TestReplyBesideEnd(t *testing.T) {
	for _, scheme := range everywhere {
		t.Run(scheme, func(t *testing.T) {
			url := testbroker.URL(t, scheme)
			server, _ := callable(t, url)
			serve(t, server, polymq.Responder(func(context.Context, *polymq.Delivery) (*polymq.Message, error) {
				return &polymq.Message{Body: []byte("yes")}, nil
			}))
			told := make(settlements, 1)
			conn, err := polymq.Open(t.Context(), url, &polymq.Options{Observers: []polymq.Observer{told}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = conn.Close(context.Background()) })
			for range 10 { // of two that are ready, select takes either
				ctx, cancel := context.WithCancel(t.Context())
				r := around(t, conn, func(publish func() error) error {
					defer cancel()
					err := publish()
					<-told
					return err
				})
				reply, err := r.Call(ctx, &polymq.Message{Key: "calls"})
				if err != nil {
					t.Errorf("%v, though the reply was here", err)
				} else if string(reply.Body) != "yes" {
					t.Errorf("the reply %q", reply.Body)
				}
				if err := r.Close(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A requester, and a receipt, say what they are, also while they are used.
func TestRequesterPrinted(t *testing.T) {
	conn := open(t, testbroker.URL(t, "mem"))
	declare(t, conn, routing.Topology{Queues: []routing.Queue{{Name: "calls"}}})
	r := requester(t, conn)
	p := publisher(t, conn, "")
	var using sync.WaitGroup
	for range 4 {
		using.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
				_, _ = r.Call(ctx, &polymq.Message{Key: "calls"})
				cancel()
			}
		})
	}
	for range 100 {
		receipt, err := p.PublishAsync(t.Context(), &polymq.Message{Key: "calls", ID: "m"})
		if err != nil {
			t.Fatal(err)
		}
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			want := `polymq.Requester(exchange "") polymq.Receipt(message "m")`
			if got := fmt.Sprintf(verb+" "+verb, r, receipt); got != want {
				t.Fatalf("%s: %s, want %s", verb, got, want)
			}
		}
	}
	using.Wait()
}
