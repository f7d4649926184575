package polymq_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func TestPublishReportsEachMessage(t *testing.T) {
	f := newFake()
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, p := range batch {
			switch p.Message.Key {
			case "nowhere":
				p.Resolve(driver.ErrUnroutable)
			case "full":
				p.Resolve(fmt.Errorf("%w: max length", driver.ErrRejected))
			default:
				p.Resolve(nil)
			}
		}
	}
	p := publisher(t, f, nil)
	err := p.Publish(t.Context(),
		&polymq.Message{Key: "a"},
		&polymq.Message{ID: "2", Key: "nowhere"},
		&polymq.Message{Key: "b\n"},
		nil,
		&polymq.Message{Key: "full"},
		&polymq.Message{ID: "6", Body: make([]byte, 2000)},
		&polymq.Message{Key: "c"},
	)
	var pe *polymq.PublishError
	if !errors.As(err, &pe) {
		t.Fatalf("%T %v, want a *PublishError", err, err)
	}
	var index []int
	for _, fl := range pe.Failures {
		index = append(index, fl.Index)
	}
	if !slices.Equal(index, []int{1, 2, 3, 4, 5}) {
		t.Fatalf("failures of %v", index)
	}
	for i, want := range []error{polymq.ErrUnroutable, polymq.ErrInvalid, polymq.ErrInvalid, polymq.ErrRejected, polymq.ErrTooLarge} {
		wantIs(t, pe.Failures[i].Err, want)
		wantIs(t, err, want)
	}
	if pe.Failures[0].ID != "2" || len(pe.Failures[3].ID) < 20 || pe.Failures[4].ID != "6" {
		t.Errorf("IDs: %+v", pe.Failures)
	}
	if errors.Is(err, polymq.ErrUnconfirmed) {
		t.Error("a definite outcome was reported as unknown")
	}
	if err := p.Publish(t.Context()); err != nil {
		t.Errorf("nothing to publish: %v", err)
	}
}

func TestPublishIsUnknownWhenCtxEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = func(ctx context.Context, batch []*driver.Publishing, wait bool) {
			f.hold(ctx, batch, wait)
			batch[0].Resolve(nil)
			if wait {
				<-ctx.Done()
			}
		}
		p := publisher(t, f, nil)
		cause := errors.New("the lunch break")
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
		defer cancel()
		err := p.Publish(ctx, &polymq.Message{ID: "known"}, &polymq.Message{ID: "unknown"})
		var pe *polymq.PublishError
		if !errors.As(err, &pe) || len(pe.Failures) != 1 || pe.Failures[0].ID != "unknown" {
			t.Fatalf("%v", err)
		}
		wantIs(t, err, polymq.ErrUnconfirmed)
		wantIs(t, err, context.DeadlineExceeded)
		wantIs(t, err, cause)

		// What the driver says afterwards must not reach another publish,
		// which a pooled struct would let it.
		late := f.held()[1]
		f.publish = f.hold
		done := make(chan error, 1)
		go func() { done <- p.Publish(t.Context(), &polymq.Message{ID: "next"}, &polymq.Message{ID: "next too"}) }()
		synctest.Wait()
		if late.Resolve(nil) {
			t.Error("an outcome was taken after the caller had given up")
		}
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("the next publish took the outcome of the last: %v", err)
		default:
		}
		for _, pub := range f.held()[2:] {
			pub.Resolve(nil)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}

		// Ended before anything was sent: that is known, and said.
		n := len(f.held())
		err = p.Publish(ctx, &polymq.Message{})
		wantIs(t, err, context.DeadlineExceeded)
		if errors.Is(err, polymq.ErrUnconfirmed) || len(f.held()) != n {
			t.Errorf("a message that was not sent: %v", err)
		}
	})
}

func TestWindowBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		p := publisher(t, f, &polymq.PublisherOptions{Window: 4})
		msgs := make([]*polymq.Message, 11)
		for i := range msgs {
			msgs[i] = &polymq.Message{ID: fmt.Sprint(i)}
		}
		done := make(chan error, 1)
		go func() { done <- p.Publish(t.Context(), msgs...) }()
		resolved := 0
		for resolved < len(msgs) {
			synctest.Wait()
			held := f.held()
			if n := len(held) - resolved; n > 4 || n == 0 {
				t.Fatalf("%d messages on their way, the window is 4", n)
			}
			held[resolved].Resolve(nil)
			resolved++
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for i, pub := range f.held() {
			if pub.ID != "" && pub.ID != fmt.Sprint(i) {
				t.Errorf("place %d: message %s", i, pub.ID)
			}
		}
		if !slices.Equal(f.sizes, []int{2, 2, 2, 2, 2, 1}) {
			t.Errorf("pieces of %v", f.sizes)
		}

		// The end of ctx ends the wait for the window.
		f.pending = nil
		for range 4 {
			if _, err := p.PublishAsync(t.Context(), &polymq.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := p.PublishAsync(ctx, &polymq.Message{})
		wantIs(t, err, context.DeadlineExceeded)
		err = p.Publish(ctx, &polymq.Message{}, &polymq.Message{})
		wantIs(t, err, context.DeadlineExceeded)
		if errors.Is(err, polymq.ErrUnconfirmed) || len(f.held()) != 4 {
			t.Errorf("a full window let something through: %v", err)
		}
		for _, pub := range f.held() {
			pub.Resolve(nil)
		}
		if err := p.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// Who gives up waiting lets those behind go.
func TestWindowServesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		p := publisher(t, f, &polymq.PublisherOptions{Window: 4})
		for range 3 {
			if _, err := p.PublishAsync(t.Context(), &polymq.Message{}); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		large, small := make(chan error, 1), make(chan error, 1)
		go func() { large <- p.Publish(ctx, &polymq.Message{}, &polymq.Message{}) }()
		synctest.Wait()
		go func() {
			_, err := p.PublishAsync(t.Context(), &polymq.Message{})
			small <- err
		}()
		synctest.Wait()
		if len(f.held()) != 3 {
			t.Error("the small one overtook the large one")
		}
		wantIs(t, <-large, context.DeadlineExceeded)
		if err := <-small; err != nil || len(f.held()) != 4 {
			t.Errorf("%v, %d on their way", err, len(f.held()))
		}
	})
}

func TestFlushWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		p := publisher(t, f, nil)
		if _, err := p.PublishAsync(t.Context(), &polymq.Message{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantIs(t, p.Flush(ctx), context.DeadlineExceeded)
		done := make(chan error, 1)
		go func() { done <- p.Flush(t.Context()) }()
		synctest.Wait()
		if len(done) > 0 {
			t.Fatal("Flush did not wait")
		}
		f.held()[0].Resolve(driver.ErrRejected)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
}

func TestPublisherClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		p := publisher(t, f, &polymq.PublisherOptions{Window: 3})
		receipt, err := p.PublishAsync(t.Context(), &polymq.Message{})
		if err != nil {
			t.Fatal(err)
		}
		unknown, waiting := make(chan error, 1), make(chan error, 1)
		go func() { unknown <- p.Publish(t.Context(), &polymq.Message{}, &polymq.Message{}) }()
		synctest.Wait()
		go func() { waiting <- p.Publish(t.Context(), &polymq.Message{}) }()
		synctest.Wait()

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := make(chan error, 2)
		for range 2 {
			go func() { closed <- p.Close(ctx) }()
		}
		synctest.Wait()
		err = <-waiting
		wantIs(t, err, polymq.ErrClosed)
		if errors.Is(err, polymq.ErrUnconfirmed) {
			t.Error("a message that was not sent is reported as unknown")
		}
		if len(closed) > 0 {
			t.Fatal("Close did not wait for what is on its way")
		}
		for range 2 {
			wantIs(t, <-closed, context.DeadlineExceeded)
		}
		wantIs(t, <-unknown, polymq.ErrUnconfirmed)
		<-receipt.Done()
		wantIs(t, receipt.Err(), polymq.ErrUnconfirmed)
		wantIs(t, p.Publish(t.Context(), &polymq.Message{}), polymq.ErrClosed)
		_, err = p.PublishAsync(t.Context(), &polymq.Message{})
		wantIs(t, err, polymq.ErrClosed)
	})
}

// TestIDsDiffer: those that lie in the same memory too.
func TestIDsDiffer(t *testing.T) {
	f := newFake()
	p := publisher(t, f, nil)
	seen := map[string]bool{}
	for range 200 {
		r, err := p.PublishAsync(t.Context(), &polymq.Message{Key: "k"})
		if err != nil {
			t.Fatal(err)
		}
		seen[r.ID()] = true
	}
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, pb := range batch {
			seen[pb.ID] = true
			pb.Resolve(nil)
		}
	}
	msgs := make([]*polymq.Message, 100)
	for i := range msgs {
		msgs[i] = &polymq.Message{Key: "k"}
	}
	for range 2 {
		if err := p.Publish(t.Context(), msgs...); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 400 {
		t.Errorf("%d IDs of 400 messages", len(seen))
	}
	for id := range seen {
		if len(id) != 26 || strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567") != "" {
			t.Errorf("ID %q", id)
		}
	}
	for at := range 26 { // none of the 32 letters is rare at any place
		letters := map[byte]int{}
		for id := range seen {
			letters[id[at]]++
		}
		if len(letters) < 28 {
			t.Errorf("%d different letters at %d", len(letters), at)
		}
	}
}

func TestConcurrentPublish(t *testing.T) {
	f := newFake()
	var resolvers sync.WaitGroup
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, p := range batch {
			resolvers.Go(func() { p.Resolve(nil) })
		}
	}
	p := publisher(t, f, &polymq.PublisherOptions{Window: 8})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				msgs := make([]*polymq.Message, i%13+1)
				for i := range msgs {
					msgs[i] = &polymq.Message{Key: "k"}
				}
				if err := p.Publish(t.Context(), msgs...); err != nil {
					t.Error(err)
				}
				r, err := p.PublishAsync(t.Context(), msgs[0])
				if err != nil {
					t.Error(err)
				} else if err := r.Wait(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	resolvers.Wait()
}

func TestPublisherOptions(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	_, err := c.Publisher(t.Context(), "x", &polymq.PublisherOptions{Window: -1})
	wantIs(t, err, polymq.ErrInvalid)
	_, err = c.Publisher(t.Context(), "x\x00", nil)
	wantIs(t, err, polymq.ErrInvalid)
	for _, name := range []string{"", "amq.default"} {
		if _, err := c.Publisher(t.Context(), name, &polymq.PublisherOptions{DropUnroutable: true}); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{`publisher "" true`, `publisher "" true`}; !slices.Equal(f.calls, want) {
		t.Errorf("%q", f.calls)
	}
}

// What middleware publishes by itself is not the message whose receipt the
// caller waits for.
func TestMiddlewarePublishesBeside(t *testing.T) {
	f := newFake()
	f.publish = f.hold
	var p *polymq.Publisher
	audit := func(next polymq.PublishFunc) polymq.PublishFunc {
		return func(ctx context.Context, msgs ...*polymq.Message) error {
			if msgs[0].ID != "audit" {
				go func() {
					for len(f.held()) == 0 {
						runtime.Gosched()
					}
					f.held()[0].Resolve(nil)
				}()
				if err := p.Publish(ctx, &polymq.Message{ID: "audit"}); err != nil {
					return err
				}
			}
			return next(ctx, msgs...)
		}
	}
	p = publisher(t, f, &polymq.PublisherOptions{Middleware: []polymq.PublishMiddleware{audit}})
	r, err := p.PublishAsync(t.Context(), &polymq.Message{ID: "m"})
	if err != nil || r.ID() != "m" {
		t.Fatalf("receipt %v, error %v; want the receipt of m", r, err)
	}
	f.held()[1].Resolve(nil)
	if err := r.Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPublishMiddleware(t *testing.T) {
	var order []string
	mark := func(name string) polymq.PublishMiddleware {
		return func(next polymq.PublishFunc) polymq.PublishFunc {
			return func(ctx context.Context, msgs ...*polymq.Message) error {
				order = append(order, name)
				for i, m := range msgs {
					n := *m
					n.AppID += name
					msgs[i] = &n
				}
				return next(ctx, msgs...)
			}
		}
	}
	swallow := func(next polymq.PublishFunc) polymq.PublishFunc {
		return func(ctx context.Context, msgs ...*polymq.Message) error {
			switch msgs[0].Key {
			case "swallow":
				return nil
			case "twice":
				return next(ctx, msgs[0], msgs[0])
			}
			return next(ctx, msgs...)
		}
	}
	f := newFake()
	var seen []string
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, p := range batch {
			seen = append(seen, p.Message.AppID)
			p.Resolve(nil)
		}
	}
	p := publisher(t, f, &polymq.PublisherOptions{Middleware: []polymq.PublishMiddleware{mark("a"), mark("b"), swallow}})
	m := &polymq.Message{}
	msgs := []*polymq.Message{m}
	if err := p.Publish(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
	r, err := p.PublishAsync(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(order, []string{"a", "b", "a", "b"}) || !slices.Equal(seen, []string{"ab", "ab"}) {
		t.Errorf("order %v, sent %v", order, seen)
	}
	if msgs[0] != m || m.AppID != "" {
		t.Error("the caller's messages were changed")
	}
	r, err = p.PublishAsync(t.Context(), &polymq.Message{ID: "s", Key: "swallow"})
	if err != nil || r.Wait(t.Context()) != nil || r.ID() != "s" {
		t.Errorf("%v %v", r, err)
	}
	_, err = p.PublishAsync(t.Context(), &polymq.Message{Key: "twice"})
	wantIs(t, err, polymq.ErrInvalid)
}
