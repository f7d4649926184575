package emulate

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// delaying is a connection whose consumers fetch by themselves.
func (w *world) delaying(t *testing.T) *bench {
	b := w.bench(t, 30*time.Second)
	b.f.attentive = true
	return b
}

// delay publishes one message.
func (b *bench) delay(exchange string, m driver.Message, d time.Duration) {
	b.t.Helper()
	m.Delay = d
	if err := publish(b.t.Context(), b.publisher(exchange), m); err != nil {
		b.t.Fatal(err)
	}
}

// TestDelayed: a message comes when it is due, not before, as it was published,
// and nobody sees where it waited.
func TestDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.ahead.Store(int64(time.Hour)) // due times are the broker's
		b := w.delaying(t)
		defer b.close()
		b.declare(plain)
		began := time.Now()
		var want []string
		for i, d := range []time.Duration{5 * time.Second, time.Millisecond, time.Minute, time.Second, time.Hour, 100 * time.Millisecond} {
			want = append(want, d.String())
			b.delay("", driver.Message{Key: "a", Body: []byte(d.String()), ID: fmt.Sprint(i)}, d)
		}
		b.delay("x", driver.Message{Key: "none", Header: driver.Header{
			"h": "v", "CC": []any{"k"}, "BCC": []any{"k", "other"},
		}, TTL: time.Hour}, 30*time.Minute)
		if top, err := b.c.Topology(t.Context()); err != nil || len(top.Queues) != 2 {
			t.Errorf("the topology is %+v, %v", top, err)
		}
		b.want("a")
		s := b.subscribe("a", 10)
		var got []string
		for range want {
			d := b.receive(s)
			delay, _ := time.ParseDuration(string(d.Message.Body))
			if late := time.Since(began) - delay; d.Message.Key == "a" && (late < 0 || late > b.c.Features().DelayPrecision) {
				t.Errorf("%s was %v late", d.Message.Body, late)
			}
			if d.Message.Delay != 0 || d.Exchange != map[bool]string{true: "", false: "x"}[d.Message.Key == "a"] {
				t.Errorf("delivered %+v", d)
			}
			if d.Message.Key == "none" {
				delete(d.Message.Header, "h")
				if !slices.Equal(slices.Collect(maps.Keys(d.Message.Header)), []string{"CC"}) || d.Message.TTL != time.Hour {
					t.Errorf("delivered with %v, %v", d.Message.Header, d.Message.TTL)
				}
			}
			got = append(got, string(d.Message.Body))
			b.settle(s, d, driver.Ack)
		}
		if want := []string{"1ms", "100ms", "1s", "5s", "1m0s", ""}; !slices.Equal(got, want) {
			t.Errorf("they came as %v", got)
		}
		b.want("b", "")
		if d := b.receive(s); string(d.Message.Body) != "1h0m0s" || time.Since(began) < time.Hour || time.Since(began) > time.Hour+time.Second {
			t.Errorf("%s came after %v", d.Message.Body, time.Since(began))
		}
	})
}

// TestDelayedSameID: what deduplicates is each queue, also where it waits in one
// first: the same ID by another way is another message, by the same way it is
// not.
func TestDelayedSameID(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Second} {
		synctest.Test(t, func(t *testing.T) {
			b := newWorld().delaying(t)
			defer b.close()
			b.declare(routing.Topology{
				Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}, {Name: "h", Kind: routing.Headers}},
				Queues:    []routing.Queue{{Name: "a"}, {Name: "b"}, {Name: "c"}, {Name: "d"}, {Name: "e"}},
				Bindings: []routing.Binding{
					{Exchange: "x", Queue: "c"},
					{Exchange: "h", Queue: "d", Args: map[string]any{"to": "d"}}, {Exchange: "h", Queue: "e", Args: map[string]any{"to": "e"}},
				},
			})
			m := driver.Message{ID: "same", Body: []byte("m")}
			for range 2 {
				for key, exchange := range map[string]string{"a": "", "b": "", "c": "x"} {
					m.Key = key
					b.delay(exchange, m, delay)
				}
				m.Key = "k"
				for _, to := range []string{"d", "e"} {
					m.Header = driver.Header{"to": to}
					b.delay("h", m, delay)
				}
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			for _, queue := range []string{"a", "b", "c", "d", "e"} {
				b.want(queue, "m")
			}
			m.Header = driver.Header{"CC": []any{"b"}}
			b.delay("", m, delay)
			m.Header = driver.Header{"BCC": []any{"c"}}
			b.delay("", m, delay)
			time.Sleep(time.Minute)
			synctest.Wait()
			b.want("b", "m", "m")
			b.want("c", "m", "m")
		})
	}
}

// TestDelayedSameIDElsewhere: a message that another process publishes again is the
// same one, in whatever order that finds its queues.
func TestDelayedSameIDElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		b, other := w.delaying(t), w.delaying(t)
		defer b.close()
		defer other.close()
		top := routing.Topology{Queues: []routing.Queue{{Name: "a"}, {Name: "b"}}}
		var want []string
		for i := range 10 {
			x := fmt.Sprint(i)
			top.Exchanges = append(top.Exchanges, routing.Exchange{Name: x, Kind: routing.Fanout})
			top.Bindings = append(top.Bindings, routing.Binding{Exchange: x, Queue: "a"}, routing.Binding{Exchange: x, Queue: "b"})
			want = append(want, x)
		}
		b.declare(top)
		for _, x := range want {
			for _, who := range []*bench{b, other} {
				who.delay(x, driver.Message{ID: "same" + x, Body: []byte(x)}, time.Minute)
			}
			time.Sleep(time.Second)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		b.want("a", want...)
		b.want("b", want...)
	})
}

// TestDelayedTTL: its time begins when it is routed.
func TestDelayedTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		b.declare(plain)
		b.delay("", driver.Message{Key: "a", Body: []byte("m"), TTL: time.Second}, 10*time.Second)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		synctest.Wait()
		b.want("a", "m")
		time.Sleep(time.Second)
		synctest.Wait()
		b.want("a")
	})
}

// TestDelayedRouting: a missing exchange is heard of at once, the way is that
// of the moment when it is due, and what has none then is kept.
func TestDelayedRouting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		ctx := t.Context()
		b.declare(plain)
		b.declare(routing.Topology{
			Exchanges: []routing.Exchange{{Name: "alt", Kind: routing.Fanout}, {Name: "y", Kind: routing.Direct, Alternate: "alt"}},
			Queues:    []routing.Queue{{Name: "others"}},
			Bindings:  []routing.Binding{{Exchange: "alt", Queue: "others"}},
		})
		if err := publish(ctx, b.publisher("no"), driver.Message{Delay: time.Hour}); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("to no exchange: %v", err)
		}
		const long = time.Hour
		b.delay("x", driver.Message{Key: "later", Body: []byte("bound later")}, long)
		b.delay("x", driver.Message{Key: "k", Body: []byte("no more")}, long)
		b.delay("y", driver.Message{Key: "k", Body: []byte("to the alternate")}, long)
		b.delay("", driver.Message{Key: "none", Body: []byte("to no queue"), Header: driver.Header{"h": int64(5)}, Type: "t"}, long)
		b.delay("", driver.Message{Key: delayedQueue, Body: []byte("to itself")}, long+time.Second)
		b.delay("y", driver.Message{Key: "gone", Body: []byte("from no exchange")}, 2*long)
		time.Sleep(long / 2)
		if err := b.c.Bind(ctx, []routing.Binding{{Exchange: "x", Queue: "a", Key: "later"}}); err != nil {
			t.Fatal(err)
		}
		if err := b.c.Unbind(ctx, []routing.Binding{{Exchange: "x", Queue: "a", Key: "k"}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(long)
		b.want("a", "bound later")
		b.want("b", "no more")
		b.want("others", "to the alternate")
		b.want(driver.UnroutableQueue, "to no queue", "to itself")
		if err := b.c.DeleteExchange(ctx, "y", driver.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(long)
		b.want(driver.UnroutableQueue, "to no queue", "to itself", "from no exchange")
		s := b.subscribe(driver.UnroutableQueue, 3)
		if d := b.receive(s); d.Exchange != "" || d.Message.Key != "none" || d.Message.Header["h"] != int64(5) || d.Message.Type != "t" || d.Message.Delay != 0 {
			t.Errorf("kept as %+v", d)
		}
		b.receive(s)
		if d := b.receive(s); d.Exchange != "y" || d.Message.Key != "gone" {
			t.Errorf("kept as %+v", d)
		}
		top, err := b.c.Topology(ctx)
		if err != nil || !slices.ContainsFunc(top.Queues, func(q routing.Queue) bool { return q.Name == driver.UnroutableQueue }) {
			t.Errorf("the topology is %+v, %v", top, err)
		}
	})
}

// TestDelayedReserved: the queue is the library's own.
func TestDelayedReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newWorld().delaying(t)
		defer b.close()
		b.declare(plain)
		b.delay("", driver.Message{Key: "a"}, time.Hour)
		ctx := t.Context()
		_, publisher := b.c.Publisher(ctx, driver.PublisherConfig{Queue: delayedQueue})
		_, subscriber := b.c.Subscriber(ctx, driver.SubscriberConfig{Queue: delayedQueue, Prefetch: 1})
		for what, err := range map[string]error{
			"Declare":    b.c.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: delayedQueue}}}),
			"bind":       b.c.Declare(ctx, routing.Topology{Bindings: []routing.Binding{{Exchange: "x", Queue: delayedQueue}}}),
			"Bind":       b.c.Bind(ctx, []routing.Binding{{Exchange: "x", Queue: delayedQueue}}),
			"Delete":     b.c.DeleteQueue(ctx, delayedQueue, driver.DeleteOptions{}),
			"Publisher":  publisher,
			"Subscriber": subscriber,
		} {
			if !errors.Is(err, driver.ErrPermission) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := publish(ctx, b.publisher(""), driver.Message{Key: delayedQueue}); !errors.Is(err, driver.ErrUnroutable) {
			t.Errorf("published to it: %v", err)
		}
		synctest.Wait() // who moves what is due has looked at it, and put it back
		if n, err := b.c.Purge(ctx, delayedQueue); n != 1 || err != nil {
			t.Errorf("purged %d, %v", n, err)
		}
	})
}

// TestDelayedAlone: whoever is there moves what is due, also one that only
// consumes, and one that was there before anything was delayed.
func TestDelayedAlone(t *testing.T) {
	for _, before := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld()
			b := w.delaying(t)
			b.declare(plain)
			var s *subscriber
			worker := w.delaying(t)
			if before {
				s = worker.subscribe("a", 1)
			}
			b.delay("", driver.Message{Key: "a", Body: []byte("m")}, time.Minute)
			b.close()
			began := time.Now()
			if !before {
				time.Sleep(2 * time.Minute) // nobody is there
				began = time.Now().Add(-time.Minute)
				s = worker.subscribe("a", 1)
			}
			d := worker.receive(s)
			if took := time.Since(began); took < time.Minute || took > time.Minute+time.Second {
				t.Errorf("it came after %v", took)
			}
			worker.settle(s, d, driver.Ack)
			worker.close()
		})
	}
}

// TestDelayedShared: several connections look after what is delayed, and each message
// is moved once, in its minute.
func TestDelayedShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var bs []*bench
		for range 3 {
			b := w.delaying(t)
			defer b.close()
			b.publisher("")
			bs = append(bs, b)
		}
		bs[0].declare(plain)
		const n = 3000
		began := time.Now()
		for i := range n {
			bs[1].delay("", driver.Message{Key: "a", Body: fmt.Append(nil, i)}, time.Duration(1+i%5)*time.Minute)
		}
		for i := range 5 {
			time.Sleep(time.Until(began.Add(time.Duration(i+1)*time.Minute - time.Millisecond)))
			synctest.Wait()
			if got := len(bs[0].bodies("a")); got != i*n/5 {
				t.Errorf("before minute %d there are %d", i+1, got)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if got := len(bs[0].bodies("a")); got != (i+1)*n/5 {
				t.Errorf("after minute %d there are %d", i+1, got)
			}
		}
	})
}
