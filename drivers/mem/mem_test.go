package mem_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/routing"
)

// address is the broker of one test.
func address(t *testing.T) (url_, name string) {
	name = strings.ReplaceAll(t.Name(), "/", "-")
	t.Cleanup(func() { mem.Remove(name) })
	return "mem://" + url.PathEscape(name), name
}

func open(t *testing.T, at string, opts *polymq.Options) *polymq.Conn {
	t.Helper()
	c, err := polymq.Open(t.Context(), at, opts)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func closed(t *testing.T, c interface{ Close(context.Context) error }) {
	t.Helper()
	if err := c.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

func declare(t *testing.T, c *polymq.Conn, queues ...routing.Queue) {
	t.Helper()
	if err := c.Declare(t.Context(), routing.Topology{Queues: queues}); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, c *polymq.Conn, msgs ...*polymq.Message) {
	t.Helper()
	p, err := c.Publisher(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, p)
	if err := p.Publish(t.Context(), msgs...); err != nil {
		t.Fatal(err)
	}
}

func subscribe(t *testing.T, c *polymq.Conn, queue string, prefetch int) *polymq.Subscriber {
	t.Helper()
	s, err := c.Subscriber(t.Context(), queue, &polymq.SubscriberOptions{Prefetch: prefetch})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func receive(t *testing.T, s *polymq.Subscriber) *polymq.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := s.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func texts(key string, from, to int) (msgs []*polymq.Message) {
	for i := from; i <= to; i++ {
		msgs = append(msgs, &polymq.Message{Key: key, Body: fmt.Append(nil, i)})
	}
	return msgs
}

// TestPlaces: what is given back stands where it stood, before what nobody has
// touched.
func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := address(t)
		c := open(t, at, nil)
		defer closed(t, c)
		declare(t, c, routing.Queue{Name: "q"})
		publish(t, c, texts("q", 1, 6)...)
		s := subscribe(t, c, "q", 3)
		var ds []*polymq.Delivery
		for range 3 {
			ds = append(ds, receive(t, s))
		}
		for _, i := range []int{2, 0} {
			if err := ds[i].Nack(t.Context(), 0); err != nil {
				t.Error(err)
			}
		}
		closed(t, s) // the second comes back too, counted: it was handed out
		s = subscribe(t, c, "q", 6)
		var got []string
		for range 6 {
			d := receive(t, s)
			got = append(got, fmt.Sprintf("%s/%d/%t", d.Body, d.Attempt, d.Redelivered))
		}
		want := []string{"1/2/true", "2/2/true", "3/2/true", "4/1/false", "5/1/false", "6/1/false"}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		closed(t, s)
	})
}

// TestDelays: nacked messages come when they are due, whatever was nacked
// before them.
func TestDelays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := address(t)
		c := open(t, at, nil)
		defer closed(t, c)
		declare(t, c, routing.Queue{Name: "q"})
		publish(t, c, texts("q", 1, 3)...)
		s := subscribe(t, c, "q", 3)
		begin := time.Now()
		for _, seconds := range []int{30, 10, 20} {
			if err := receive(t, s).Nack(t.Context(), time.Duration(seconds)*time.Second); err != nil {
				t.Error(err)
			}
		}
		for _, want := range []string{"2 after 10s", "3 after 20s", "1 after 30s"} {
			d := receive(t, s)
			if got := fmt.Sprintf("%s after %v", d.Body, time.Since(begin)); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		closed(t, s)
	})
}

// TestRestart: what is durable stays, what is transient is gone, what was held
// comes again.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, name := address(t)
		var states []polymq.State
		c := open(t, at, &polymq.Options{OnState: func(s polymq.State, _ error) { states = append(states, s) }})
		defer closed(t, c)
		declare(t, c, routing.Queue{Name: "q"})
		other := open(t, at, nil) // whoever declared it and is connected makes it anew
		declare(t, other, routing.Queue{Name: "transient", Transient: true})
		closed(t, other)
		publish(t, c, append(texts("q", 1, 2), &polymq.Message{Key: "q", Transient: true}, &polymq.Message{Key: "transient"})...)
		s := subscribe(t, c, "q", 1)
		d := receive(t, s)
		lost := subscribe(t, c, "transient", 1)
		mem.Restart(name)
		if err := d.Ack(t.Context()); !errors.Is(err, polymq.ErrLost) {
			t.Errorf("Ack of what was held: %v", err)
		}
		if d = receive(t, s); string(d.Body) != "1" || d.Attempt != 2 {
			t.Errorf("got %s, attempt %d", d.Body, d.Attempt)
		}
		if info, err := c.Inspect(t.Context(), "q"); err != nil || info.Ready != 1 || info.Unsettled != 1 || info.Consumers != 1 {
			t.Errorf("the durable queue has %+v, %v", info, err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if d, err := lost.Receive(ctx); err == nil {
			t.Errorf("%+v came from a queue that is gone", d)
		}
		top, err := c.Topology(t.Context())
		if err != nil || len(top.Queues) != 1 || top.Queues[0].Name != "q" {
			t.Errorf("the topology is %+v, %v", top, err)
		}
		if !slices.Contains(states, polymq.StateDisconnected) {
			t.Errorf("states %v", states)
		}
		closed(t, s)
		closed(t, lost)
	})
}

// TestDedup: one ID is one message for 20 seconds, and another one later.
func TestDedup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := address(t)
		c := open(t, at, nil)
		defer closed(t, c)
		declare(t, c, routing.Queue{Name: "q"})
		for i, wait := range []time.Duration{0, 10 * time.Second, 9 * time.Second, 40 * time.Second} {
			time.Sleep(wait)
			publish(t, c, &polymq.Message{ID: "same", Key: "q"})
			want := 1 + i/3
			if info, err := c.Inspect(t.Context(), "q"); err != nil || info.Ready != want {
				t.Errorf("after publish %d: %d messages, %v, want %d", i+1, info.Ready, err, want)
			}
		}
	})
}

// TestShared: names are brokers, vhosts are namespaces.
func TestShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := address(t)
		one, two, other := open(t, at, nil), open(t, at, nil), open(t, at+"?vhost=other", nil)
		defer closed(t, one)
		defer closed(t, two)
		defer closed(t, other)
		declare(t, one, routing.Queue{Name: "q"})
		if err := two.Verify(t.Context(), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}); err != nil {
			t.Error(err)
		}
		if _, err := other.Inspect(t.Context(), "q"); !errors.Is(err, polymq.ErrNotFound) {
			t.Errorf("another vhost: %v", err)
		}
		publish(t, one, texts("q", 1, 4)...)
		a, b := subscribe(t, one, "q", 2), subscribe(t, two, "q", 2)
		got := []string{string(receive(t, a).Body), string(receive(t, a).Body), string(receive(t, b).Body), string(receive(t, b).Body)}
		if slices.Sort(got); !slices.Equal(got, []string{"1", "2", "3", "4"}) {
			t.Errorf("two subscribers got %v", got)
		}
		closed(t, a)
		closed(t, b)
	})
}

func TestBadURLs(t *testing.T) {
	for _, at := range []string{"mem://a?nonsense=1", "mem://a:5", "mem://a,b", "mem://user@a", "mem://a/path"} {
		if c, err := polymq.Open(t.Context(), at, nil); err == nil {
			t.Errorf("%s was opened", at)
			closed(t, c)
		}
	}
}

// TestOwnCopies: nobody sees what others do with their slices and maps.
func TestOwnCopies(t *testing.T) {
	at, _ := address(t)
	c := open(t, at, nil)
	defer closed(t, c)
	declare(t, c, routing.Queue{Name: "q"})
	for _, size := range []int{3, 1000} {
		m := &polymq.Message{Key: "q", Body: make([]byte, size), Header: polymq.Header{"list": []any{"a"}}}
		publish(t, c, m)
		m.Body[0], m.Header["list"].([]any)[0] = 1, "changed"
		s := subscribe(t, c, "q", 1)
		for range 2 {
			d := receive(t, s)
			if d.Body[0] != 0 || d.Header["list"].([]any)[0] != "a" {
				t.Errorf("got %v, %v", d.Body[0], d.Header)
			}
			d.Body[0], d.Header["list"].([]any)[0] = 2, "changed"
			if d.Attempt == 1 {
				if err := d.Nack(t.Context(), 0); err != nil {
					t.Error(err)
				}
			} else if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		closed(t, s)
	}
}

// TestSingleActive: one gets all, and the next one in order when it goes, while
// what the first holds stays its own.
func TestSingleActive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		at, _ := address(t)
		one, two := open(t, at, nil), open(t, at, nil)
		defer closed(t, one)
		defer closed(t, two)
		declare(t, one, routing.Queue{Name: "q", SingleActiveConsumer: true})
		first, second, third := subscribe(t, one, "q", 2), subscribe(t, two, "q", 1), subscribe(t, one, "q", 1)
		publish(t, one, texts("q", 1, 5)...)
		a, b := receive(t, first), receive(t, first)
		if info, err := one.Inspect(t.Context(), "q"); err != nil || info.Ready != 3 || info.Unsettled != 2 || info.Consumers != 3 {
			t.Errorf("%+v, %v", info, err)
		}
		if err := a.Ack(t.Context()); err != nil {
			t.Error(err)
		}
		c := receive(t, first)
		closed(t, first)
		if string(b.Body) != "2" || string(c.Body) != "3" {
			t.Errorf("the first got %s and %s", b.Body, c.Body)
		}
		for _, want := range []string{"2", "3"} {
			d := receive(t, second)
			if string(d.Body) != want {
				t.Errorf("the second got %s, want %s", d.Body, want)
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Error(err)
			}
		}
		closed(t, second)
		if d := receive(t, third); string(d.Body) != "4" {
			t.Errorf("the third got %s", d.Body)
		}
		closed(t, third)
	})
}
