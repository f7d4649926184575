package polymq_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

func observedPublisher(t testing.TB, f *fake, os ...polymq.Observer) *polymq.Publisher {
	t.Helper()
	p, err := observed(t, f, os...).Publisher(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestHooksPublish(t *testing.T) {
	f := newFake()
	var d diary
	p := observedPublisher(t, f, d.hooks())
	if err := p.Publish(t.Context(), &polymq.Message{ID: "1"}, &polymq.Message{ID: "2"}); err != nil {
		t.Fatal(err)
	}
	d.want(t,
		"publish to x, async false: 2, <nil>",
		"published to x: 1:false 2:false, failed false (publish )")

	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, pub := range batch {
			pub.Resolve(driver.ErrRejected)
		}
	}
	wantIs(t, p.Publish(t.Context(), &polymq.Message{ID: "1", Key: "\n"}, nil, &polymq.Message{ID: "3"}), polymq.ErrRejected)
	d.want(t,
		"publish to x, async false: 3, <nil>",
		"published to x: 1:true :true 3:true, failed true (publish )")

	if err := p.Publish(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.want(t)
}

func TestHooksPublishAsync(t *testing.T) {
	f := newFake()
	f.publish = f.hold
	var d diary
	p := observedPublisher(t, f, d.hooks())
	r, err := p.PublishAsync(t.Context(), &polymq.Message{ID: "1"})
	if err != nil {
		t.Fatal(err)
	}
	d.want(t, "publish to x, async true: 1, <nil>")
	go f.held()[0].Resolve(driver.ErrUnroutable)
	<-r.Done()
	d.want(t, "published to x: 1:true, failed true (publish )")
	_, err = p.PublishAsync(t.Context(), &polymq.Message{ID: "2", Key: "\n"})
	wantIs(t, err, polymq.ErrInvalid)
	d.want(t,
		"publish to x, async true: 1, <nil>",
		"published to x: 2:true, failed true (publish )")
}

// What a hook puts in the place of a message is sent, and the application's is
// left alone.
func TestHooksReplaceMessages(t *testing.T) {
	f := newFake()
	var sent []*driver.Message
	confirm := f.publish
	f.publish = func(ctx context.Context, batch []*driver.Publishing, wait bool) {
		for _, pub := range batch {
			m := *pub.Message
			sent = append(sent, &m)
		}
		confirm(ctx, batch, wait)
	}
	p := observedPublisher(t, f, &polymq.Hooks{PublishBegin: func(ctx context.Context, e polymq.PublishEvent) context.Context {
		m := *e.Messages[0].Message
		m.Header = polymq.Header{"added": "yes"}
		e.Messages[0].Message = &m
		return ctx
	}})
	first, second := &polymq.Message{ID: "1"}, &polymq.Message{ID: "2"}
	args := []*polymq.Message{first, second}
	if err := p.Publish(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
	if args[0] != first || first.Header != nil {
		t.Error("the application's message or slice was changed")
	}
	if _, err := p.PublishAsync(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"yes", "", "yes"} {
		if got := sent[i].Header.Get("added"); got != want {
			t.Errorf("message %d was sent with %q, want %q", i, got, want)
		}
	}
}

// A receipt has no outcome before the hooks have heard of it.
func TestHooksHearBeforeTheReceipt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		heard := make(chan struct{})
		p := observedPublisher(t, f, &polymq.Hooks{PublishEnd: func(context.Context, polymq.PublishEvent) { <-heard }})
		r, err := p.PublishAsync(t.Context(), &polymq.Message{})
		if err != nil {
			t.Fatal(err)
		}
		go f.held()[0].Resolve(driver.ErrRejected)
		synctest.Wait()
		soon, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Err(); err != nil {
			t.Errorf("Err: %v", err)
		}
		wantIs(t, r.Wait(soon), context.DeadlineExceeded)
		close(heard)
		wantIs(t, r.Wait(t.Context()), polymq.ErrRejected)
		wantIs(t, r.Err(), polymq.ErrRejected)
	})
}
