package emulate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// bench is a connection to a world of its own.
type bench struct {
	t *testing.T
	w *world
	f *fake
	c driver.Conn
}

func newBench(t *testing.T) *bench {
	w := newWorld()
	return w.bench(t, 30*time.Second)
}

func (w *world) bench(t *testing.T, lease time.Duration) *bench {
	b := &bench{t: t, w: w, f: w.client()}
	b.f.lease = lease
	var err error
	if b.c, err = New(t.Context(), b.f, Config{}); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) declare(want routing.Topology) {
	b.t.Helper()
	if err := b.c.Declare(b.t.Context(), want); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) publisher(exchange string) driver.Publisher {
	b.t.Helper()
	p, err := b.c.Publisher(b.t.Context(), driver.PublisherConfig{Exchange: exchange})
	if err != nil {
		b.t.Fatal(err)
	}
	return p
}

func (b *bench) close() {
	b.t.Helper()
	if err := b.c.Close(context.Background()); err != nil {
		b.t.Error(err)
	}
}

// queue is the storage of a queue as the topology names it.
func (b *bench) queue(name string) *fakeQueue {
	b.t.Helper()
	st, err := b.c.(*conn).refresh(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	if st.queues[name] == nil {
		b.t.Fatalf("no queue %q", name)
	}
	return b.w.queues[st.queues[name].Incarnation]
}

// bodies is what waits in a queue.
func (b *bench) bodies(name string) []string {
	q := b.queue(name)
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	var out []string
	for _, d := range q.messages {
		out = append(out, string(d.Message.Body))
	}
	return out
}

func (b *bench) want(name string, bodies ...string) {
	b.t.Helper()
	if got := b.bodies(name); !slices.Equal(got, bodies) {
		b.t.Errorf("queue %q has %q, want %q", name, got, bodies)
	}
}

var plain = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
	Queues:    []routing.Queue{{Name: "a"}, {Name: "b"}},
	Bindings:  []routing.Binding{{Exchange: "x", Queue: "a", Key: "k"}, {Exchange: "x", Queue: "b", Key: "k"}},
}

func TestOutcomes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		for _, c := range []struct {
			exchange, key string
			want          error
		}{
			{"x", "k", nil},
			{"x", "other", driver.ErrUnroutable},
			{"", "a", nil},
			{routing.DefaultExchange, "a", nil},
			{"", "nobody", driver.ErrUnroutable},
			{"nowhere", "k", driver.ErrNotFound},
		} {
			if err := publish(t.Context(), b.publisher(c.exchange), driver.Message{Key: c.key, Body: []byte(c.exchange)}); !errors.Is(err, c.want) {
				t.Errorf("to %q with %q: %v, want %v", c.exchange, c.key, err, c.want)
			}
		}
		b.want("a", "x", "", "amq.default")
		b.want("b", "x")
		p, err := b.c.Publisher(t.Context(), driver.PublisherConfig{Exchange: "x", DropUnroutable: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(t.Context(), p, driver.Message{Key: "other"}); err != nil {
			t.Errorf("DropUnroutable: %v", err)
		}
	})
}

func TestBlindCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		m := driver.Message{Key: "a", Header: driver.Header{"BCC": []any{"b"}, "h": "v"}}
		if err := publish(t.Context(), b.publisher(""), m); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"a", "b"} {
			h := b.queue(name).messages[0].Message.Header
			if _, there := h["BCC"]; there || h["h"] != "v" {
				t.Errorf("queue %q got the header %v", name, h)
			}
		}
		if _, there := m.Header["BCC"]; !there {
			t.Error("the publisher's message was changed")
		}
	})
}

// TestUnknownIsRetried: an unknown outcome is tried again under the same ID
// until it is known, and refused parts of a fan-out are not made up.
func TestUnknownIsRetried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		var mu sync.Mutex // the publisher tries first, the retrier afterwards
		tries := map[string]int{}
		var ids []string
		b.f.refuse = func(p *Parcel) error {
			mu.Lock()
			defer mu.Unlock()
			tries[p.Queue.Name]++
			ids = append(ids, p.DedupID)
			if p.Retry != (tries[p.Queue.Name] > 1) {
				t.Errorf("try %d has Retry=%t", tries[p.Queue.Name], p.Retry)
			}
			if p.Queue.Name == "b" && tries["b"] < 4 {
				return driver.ErrUnconfirmed
			}
			return nil
		}
		if err := publish(t.Context(), b.publisher("x"), driver.Message{ID: "one", Key: "k", Body: []byte("m")}); err != nil {
			t.Fatal(err)
		}
		if tries["a"] != 1 || tries["b"] != 4 || slices.ContainsFunc(ids, func(id string) bool { return id != "one" }) {
			t.Errorf("tries %v under the IDs %v", tries, ids)
		}
		b.want("a", "m")
		b.want("b", "m")
	})
}

func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		b.f.refuse = func(p *Parcel) error {
			if p.Queue.Name == "a" {
				return driver.ErrRejected
			}
			return nil
		}
		if err := publish(t.Context(), b.publisher("x"), driver.Message{Key: "k", Body: []byte("m")}); !errors.Is(err, driver.ErrRejected) {
			t.Errorf("outcome %v, want ErrRejected", err)
		}
		b.want("b", "m")
	})
}

// TestRefusedInDoubt: what was refused, and may have been stored by an earlier try, is not
// tried again: that would not tell.
func TestRefusedInDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		tries := 0
		b.f.refuse = func(*Parcel) error {
			tries++
			return fmt.Errorf("%w: %w", driver.ErrUnconfirmed, driver.ErrRejected)
		}
		err := publish(t.Context(), b.publisher(""), driver.Message{Key: "a", Body: []byte("m")})
		if !errors.Is(err, driver.ErrRejected) || !errors.Is(err, driver.ErrUnconfirmed) || tries != 1 {
			t.Errorf("outcome %v after %d tries", err, tries)
		}
	})
}

// TestGone: a queue whose storage is gone leaves the topology, and the message
// is routed again.
func TestGone(t *testing.T) {
	for _, key := range []string{"k", "only"} {
		t.Run(key, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				defer b.close()
				b.declare(plain)
				b.declare(routing.Topology{Bindings: []routing.Binding{{Exchange: "x", Queue: "a", Key: "only"}}})
				p := b.publisher("x")
				b.w.mu.Lock()
				clear(b.w.queues) // both are lost
				b.w.mu.Unlock()
				if err := publish(t.Context(), p, driver.Message{Key: key}); !errors.Is(err, driver.ErrUnroutable) {
					t.Fatalf("outcome %v, want ErrUnroutable", err)
				}
				top, err := b.c.Topology(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				left := map[string]int{"k": 0, "only": 1}[key]
				if len(top.Queues) != left || len(top.Bindings) != left || len(top.Exchanges) != 1 {
					t.Errorf("the topology has %+v", top)
				}
			})
		})
	}
}

// TestMadeAnew: a queue that was deleted and declared again by another process
// gets the message that was routed to the old one.
func TestMadeAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		other := b.w.bench(t, 0)
		defer other.close()
		b.f.refuse = func(p *Parcel) error {
			if b.f.appends.Load() > 2 {
				return nil
			}
			if p.Queue.Name == "b" { // between routing and storing
				done := make(chan struct{})
				go func() {
					defer close(done)
					b.f.mu.Lock()
					delete(b.w.queues, p.Queue.Incarnation)
					b.f.mu.Unlock()
					if err := other.c.Declare(context.Background(), plain); err != nil {
						t.Error(err)
					}
				}()
				<-done
			}
			return nil
		}
		if err := publish(t.Context(), b.publisher("x"), driver.Message{Key: "k", Body: []byte("m")}); err != nil {
			t.Fatal(err)
		}
		b.want("a", "m")
		b.want("b", "m")
	})
}

// TestParked: without a lease nothing is routed and nothing is reordered; the
// lease back, all of it goes out in order.
func TestParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		var down atomic.Bool
		synctest.Wait() // the keeper has read what was declared
		b.f.trouble = func(_ context.Context, call string, _ bool) error {
			if call == "renew" && down.Load() {
				return errors.New("down")
			}
			return nil
		}
		p := b.publisher("")
		down.Store(true)
		time.Sleep(LeaseTime)
		o := make(owner, 10)
		var want []string
		send := func(i int) {
			pb := &driver.Publishing{Owner: o}
			body := fmt.Sprint(i)
			want = append(want, body)
			pb.Reset(&driver.Message{Key: "a", Body: []byte(body)}, body)
			p.Publish(t.Context(), []*driver.Publishing{pb}, false)
		}
		for i := range 5 {
			send(i)
		}
		synctest.Wait()
		b.want("a")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := publish(ctx, p, driver.Message{Key: "a", Body: []byte("given up")}); !errors.Is(err, driver.ErrUnconfirmed) {
			t.Errorf("outcome %v without a lease", err)
		}
		down.Store(false)
		for i := range 5 {
			send(5 + i)
		}
		for range 10 {
			if err := <-o; err != nil {
				t.Error(err)
			}
		}
		b.want("a", want...)
	})
}

// TestParkedGivenUp: what callers gave up does not gather while there is no
// lease.
func TestParkedGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		var down atomic.Bool
		synctest.Wait() // the keeper has read what was declared
		b.f.trouble = func(_ context.Context, call string, _ bool) error {
			if call == "renew" && down.Load() {
				return errors.New("down")
			}
			return nil
		}
		p := b.publisher("")
		down.Store(true)
		time.Sleep(LeaseTime)
		o := make(owner, 2)
		kept := [2]driver.Publishing{{Owner: o}, {Owner: o}}
		for i := range kept {
			kept[i].Reset(&driver.Message{Key: "a"}, fmt.Sprint(i))
		}
		p.Publish(t.Context(), []*driver.Publishing{&kept[0], &kept[1]}, false)
		kept[1].Resolve(driver.ErrUnconfirmed)
		for range 100 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			if err := publish(ctx, p, driver.Message{Key: "a"}); !errors.Is(err, driver.ErrUnconfirmed) {
				t.Errorf("outcome %v without a lease", err)
			}
			cancel()
			r := &b.c.(*conn).retrier
			r.mu.Lock()
			n := len(r.parked)
			r.mu.Unlock()
			if n > 12 {
				t.Fatalf("%d are parked, of which one is waited for and ten are younger than a second", n)
			}
		}
		time.Sleep(2 * pruneEvery)
		if n := p.(*publisher).parked.Load(); n != 2 {
			t.Errorf("%d are parked, want the 2 of the batch that is waited for", n)
		}
	})
}

// TestCloseResolves: Close resolves what is parked or being retried, of a
// publisher and of a connection.
func TestCloseResolves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.declare(plain)
		b.f.refuse = func(*Parcel) error { return driver.ErrUnconfirmed }
		one, two := b.publisher(""), b.publisher("x")
		var work sync.WaitGroup
		outcome := func(p driver.Publisher, key string) {
			work.Go(func() {
				if err := publish(context.Background(), p, driver.Message{Key: key}); !errors.Is(err, driver.ErrUnconfirmed) {
					t.Errorf("outcome %v, want ErrUnconfirmed", err)
				}
			})
		}
		outcome(one, "a")
		outcome(two, "k")
		time.Sleep(5 * time.Second)
		if err := one.Close(t.Context()); err != nil {
			t.Error(err)
		}
		b.close()
		work.Wait()
		if err := publish(context.Background(), two, driver.Message{Key: "k"}); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
	})
}
