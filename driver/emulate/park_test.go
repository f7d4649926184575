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

// batch publishes messages together and returns their outcomes, in order.
func (b *bench) batch(p driver.Publisher, ms ...driver.Message) (owners []owner) {
	var batch []*driver.Publishing
	for i, m := range ms {
		o := make(owner, 1)
		pb := &driver.Publishing{Owner: o}
		pb.Reset(&m, fmt.Sprintf("%p-%d", batch, i)+string(m.Body))
		batch, owners = append(batch, pb), append(owners, o)
	}
	p.Publish(b.t.Context(), batch, false)
	return owners
}

// applied counts the changes of the topology from now on; failing makes them
// fail until it is over.
func (b *bench) applied(failing time.Duration) func() int {
	var mu sync.Mutex
	n, end := 0, time.Now().Add(failing)
	b.f.trouble = func(_ context.Context, call string, after bool) error {
		mu.Lock()
		defer mu.Unlock()
		if call == "apply" && !after {
			if time.Now().Before(end) {
				return errors.New("no change just now")
			}
			n++
		}
		return nil
	}
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

// TestMarkedOnce: the first message with a time of its own marks each queue
// that it comes to, and only once; what follows it comes after it. A time that
// the queue gives anyhow needs no mark.
func TestMarkedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		n := b.applied(0)
		want := plain
		want.Queues = append(slices.Clone(plain.Queues), routing.Queue{Name: "given", TTL: time.Minute})
		b.declare(want)
		before := n()
		if err := publish(t.Context(), b.publisher(""), driver.Message{Key: "given", TTL: time.Hour}); err != nil {
			t.Fatal(err)
		}
		if n() != before {
			t.Error("a time that the queue gives anyhow was marked")
		}
		p := b.publisher("x")
		var bodies []string
		var owners []owner
		for round := range 3 {
			var ms []driver.Message
			for i := range 5 {
				m := driver.Message{Key: "k", Body: []byte(fmt.Sprint(round, i))}
				if i%2 == 1 {
					m.TTL = time.Hour
				}
				ms, bodies = append(ms, m), append(bodies, string(m.Body))
			}
			owners = append(owners, b.batch(p, ms...)...)
		}
		for i, o := range owners {
			if err := <-o; err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
		b.want("a", bodies...)
		b.want("b", bodies...)
		if n() != before+2 {
			t.Errorf("%d changes for two queues", n()-before)
		}
		st := b.c.(*conn).topo.current()
		if !st.queues["a"].expiring || !st.queues["b"].expiring || st.queues["given"].expiring {
			t.Error("not the right queues are marked")
		}
		// The queues are the same as before.
		b.publish("a", "more")
		b.want("a", append(bodies, "more")...)
		b.declare(want)
	})
}

// TestMarkFails: while a queue cannot be marked, what a publisher publishes
// waits, in order, and holds up no other publisher. What is given up meanwhile
// is not published.
func TestMarkFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.declare(plain)
		b.close()
		b = b.w.bench(t, 30*time.Second)
		defer b.close()
		n := b.applied(20 * time.Second)
		p, closed := b.publisher(""), b.publisher("")
		first := b.batch(p, driver.Message{Key: "a", Body: []byte("1")}, driver.Message{Key: "a", Body: []byte("2"), TTL: time.Hour}, driver.Message{Key: "a", Body: []byte("3")})
		second := b.batch(p, driver.Message{Key: "a", Body: []byte("4")})
		gone := b.batch(closed, driver.Message{Key: "a", Body: []byte("5"), TTL: time.Hour})
		time.Sleep(10 * time.Second)
		b.want("a", "1")
		if err := <-first[0]; err != nil {
			t.Error(err)
		}
		b.publish("a", "other")
		b.want("a", "1", "other")
		if err := closed.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		select {
		case err := <-gone[0]:
			if !errors.Is(err, driver.ErrUnconfirmed) {
				t.Errorf("a closed publisher's message: %v", err)
			}
		default:
			t.Error("a closed publisher's message is not resolved")
		}
		time.Sleep(12 * time.Second)
		for _, o := range []owner{first[1], first[2], second[0]} {
			if err := <-o; err != nil {
				t.Error(err)
			}
		}
		b.want("a", "1", "other", "2", "3", "4")
		if n() != 1 {
			t.Errorf("%d changes", n())
		}
		if left := p.(*publisher).parked.Load(); left != 0 {
			t.Errorf("%d are parked", left)
		}
	})
}

// TestNeedRefused: where what a message needs may not be made, or the broker
// takes no writes, that is the outcome, and it holds up nothing behind it.
func TestNeedRefused(t *testing.T) {
	for what, m := range map[string]driver.Message{"ttl": {Key: "a", TTL: time.Hour}, "delay": {Key: "a", Delay: time.Hour}} {
		for _, refusal := range []error{driver.ErrPermission, driver.ErrRejected} {
			t.Run(fmt.Sprint(what, " ", refusal), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					b := newBench(t)
					defer b.close()
					var refuse atomic.Bool
					b.f.trouble = func(_ context.Context, call string, after bool) error {
						if (call == "apply" || call == "create") && !after && refuse.Load() {
							return fmt.Errorf("%w: not now", refusal)
						}
						return nil
					}
					b.declare(plain)
					refuse.Store(true)
					outcomes := b.batch(b.publisher(""), m, driver.Message{Key: "a", Body: []byte("next")})
					began := time.Now()
					if err := <-outcomes[0]; !errors.Is(err, refusal) {
						t.Error(err)
					}
					if err := <-outcomes[1]; err != nil {
						t.Error(err)
					}
					if took := time.Since(began); took > time.Second {
						t.Errorf("it took %v", took)
					}
					b.want("a", "next")
				})
			})
		}
	}
}

// TestMarkedAnew: a message whose queue is made anew on its way marks that one
// too.
func TestMarkedAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		b.publishTTL("a", "before", time.Hour)
		other := b.w.bench(t, 0)
		defer other.close()
		var once sync.Once
		b.f.refuse = func(p *Parcel) error {
			once.Do(func() { // between routing and storing
				b.w.mu.Lock()
				delete(b.w.queues, p.Queue.Incarnation)
				b.w.mu.Unlock()
				done := make(chan struct{})
				go func() {
					defer close(done)
					other.declare(plain)
				}()
				<-done
			})
			return nil
		}
		b.publishTTL("a", "m", time.Hour)
		b.want("a", "m")
		if !b.c.(*conn).topo.current().queues["a"].expiring {
			t.Error("the queue made anew is not marked")
		}
	})
}

// TestOneQueue: a publisher to one queue has everything go there, under the
// exchange that it names.
func TestOneQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		p, err := b.c.Publisher(t.Context(), driver.PublisherConfig{Exchange: "gone", Queue: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(t.Context(), p, driver.Message{Key: "b", Body: []byte("m"), TTL: time.Hour}); err != nil {
			t.Error(err)
		}
		b.want("a", "m")
		b.want("b")
		if d := b.queue("a").messages[0]; d.Exchange != "gone" || d.Message.Key != "b" {
			t.Errorf("arrived by %q with %q", d.Exchange, d.Message.Key)
		}
		if err := publish(t.Context(), p, driver.Message{Key: "b", Delay: time.Second}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("with a delay: %v", err)
		}
		p, err = b.c.Publisher(t.Context(), driver.PublisherConfig{Exchange: "x", Queue: "missing"})
		if err != nil {
			t.Fatal(err)
		}
		if err := publish(t.Context(), p, driver.Message{Key: "k"}); !errors.Is(err, driver.ErrUnroutable) {
			t.Errorf("to a queue that is missing: %v", err)
		}
	})
}

// TestDelayedIsParked: a delayed message is confirmed when its queue has it,
// which is made first; what follows comes in order. A missing exchange is heard
// of at once.
func TestDelayedIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		p := b.publisher("x")
		start := time.Now()
		owners := b.batch(p,
			driver.Message{Key: "k", Body: []byte("1")},
			driver.Message{Key: "k", Body: []byte("late"), Delay: time.Minute, TTL: time.Second, Header: driver.Header{"BCC": []any{"none"}}},
			driver.Message{Key: "k", Body: []byte("2")})
		for i, o := range owners {
			if err := <-o; err != nil {
				t.Errorf("message %d: %v", i, err)
			}
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("confirmed after %v", took)
		}
		b.want("a", "1", "2")
		b.want("b", "1", "2")
		if err := publish(t.Context(), b.publisher("nowhere"), driver.Message{Key: "k", Delay: time.Minute}); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("to an exchange that is missing: %v", err)
		}
		// The broker loses the delayed messages with their queue.
		b.w.mu.Lock()
		q := b.c.(*conn).topo.current().queues[delayedQueue]
		b.w.queues[q.Incarnation].end(driver.ErrNotFound)
		delete(b.w.queues, q.Incarnation)
		b.w.mu.Unlock()
		if err := publish(t.Context(), p, driver.Message{Key: "k", Body: []byte("again"), Delay: time.Minute}); err != nil {
			t.Fatal(err)
		}
		s := b.subscribe("a", 10)
		b.receive(s)
		b.receive(s)
		start = time.Now()
		d := b.receive(s)
		if string(d.Message.Body) != "again" || d.Message.Delay != 0 || time.Since(start) < 50*time.Second {
			t.Errorf("received %q after %v", d.Message.Body, time.Since(start))
		}
	})
}
