package polymq_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

func TestSubscribeTemporary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := connect(t, f)
		s, err := c.SubscribeTemporary(t.Context(), nil, routing.Binding{Exchange: "events", Key: "a"}, routing.Binding{Exchange: "events", Key: "b"})
		if err != nil {
			t.Fatal(err)
		}
		q := f.declared.Queues[0]
		if q.Name != s.Queue() || !strings.HasPrefix(q.Name, "polymq.gen-") || !q.Exclusive {
			t.Errorf("declared %+v for %q", q, s.Queue())
		}
		for _, b := range f.declared.Bindings {
			if b.Queue != q.Name || b.Exchange != "events" {
				t.Errorf("declared %v", b)
			}
		}
		// The queue comes back with its connection, and the subscriber with it.
		f.queue <- nil
		f.deliver("1")
		if d, err := s.Receive(t.Context()); err != nil || d.ID != "1" {
			t.Fatal(err)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f.count("delete queue "+q.Name+" {false false}") != 1 {
			t.Errorf("the queue outlives its subscriber: %v", f.calls)
		}
		other, err := c.SubscribeTemporary(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if other.Queue() == s.Queue() {
			t.Error("two temporary queues of one name")
		}
	})
}

func TestSubscribeTemporaryFails(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	_, err := c.SubscribeTemporary(t.Context(), nil, routing.Binding{Exchange: "x", Queue: "q"})
	wantIs(t, err, polymq.ErrInvalid)
	if len(f.calls) > 0 {
		t.Errorf("asked the driver: %v", f.calls)
	}
	_, err = c.SubscribeTemporary(t.Context(), &polymq.SubscriberOptions{Prefetch: -1}, routing.Binding{Exchange: "x"})
	wantIs(t, err, polymq.ErrInvalid)
	if name := f.declared.Queues[0].Name; f.count("delete queue "+name+" {false false}") != 1 {
		t.Errorf("a queue was left behind: %v", f.calls)
	}
}

// An exclusive queue that the program deleted does not come back.
func TestExclusiveDeleted(t *testing.T) {
	f := newFake()
	c := connect(t, f)
	if err := c.Declare(t.Context(), routing.Topology{Queues: []routing.Queue{{Name: "q", Exclusive: true}}}); err != nil {
		t.Fatal(err)
	}
	s, err := c.Subscriber(t.Context(), "q", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteQueue(t.Context(), "q", nil); err != nil {
		t.Fatal(err)
	}
	f.queue <- nil
	_, err = s.Receive(t.Context())
	wantIs(t, err, polymq.ErrNotFound)
}
