package mem

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// bare is a queue that no connection looks after.
type bare struct {
	*testing.T
	*queue
	def *emulate.Queue
}

func newBare(t *testing.T, def routing.Queue) *bare {
	eq := &emulate.Queue{Queue: def, Incarnation: "1"}
	return &bare{t, newQueue(eq), eq}
}

// publish stores messages and says which were refused.
func (b *bare) publish(ms ...*driver.Message) (refused []string) {
	var parcels []*emulate.Parcel
	for _, m := range ms {
		parcels = append(parcels, &emulate.Parcel{Queue: b.def, Publishing: &driver.Publishing{Message: m, ID: m.ID}, DedupID: m.ID})
	}
	no, _, _ := b.add(parcels)
	for _, p := range parcels {
		if no[p] {
			refused = append(refused, string(p.Publishing.Message.Body))
		}
	}
	return refused
}

// sweeps wants a sweep by s to return these, as body/reason, then "more", the
// time until Next and "empty".
func (b *bare) sweeps(s *store, max int, want string) []*emulate.Delivery {
	b.Helper()
	swept, err := b.sweep(s, max)
	if err != nil {
		b.Fatal(err)
	}
	var got []string
	for _, d := range swept.Dead {
		got = append(got, fmt.Sprintf("%s/%s", d.Message.Body, d.Reason))
	}
	if swept.More {
		got = append(got, "more")
	}
	if !swept.Next.IsZero() {
		got = append(got, time.Until(swept.Next).String())
	}
	if swept.Empty {
		got = append(got, "empty")
	}
	if got := strings.Join(got, " "); got != want {
		b.Errorf("swept: %q, want %q", got, want)
	}
	return swept.Dead
}

// holds wants these bodies to be ready, the next to be delivered first.
func (b *bare) holds(want string) {
	b.Helper()
	var got []string
	bytes := b.ready.bytes
	for b.ready.n > 0 {
		got = append(got, string(b.ready.pop().message.Body))
	}
	if got := strings.Join(got, " "); got != want {
		b.Errorf("the queue holds %q, want %q", got, want)
	}
	if n := int64(len(strings.Join(got, ""))); bytes != n || b.ready.bytes != 0 {
		b.Errorf("%d bytes were counted, then %d, where there are %d", bytes, b.ready.bytes, n)
	}
}

func body(s string) *driver.Message { return &driver.Message{Body: []byte(s)} }

func lasts(s string, ttl time.Duration) *driver.Message {
	return &driver.Message{Body: []byte(s), TTL: ttl}
}

// TestExpiry: what is over leaves the queue from its head, and only there.
func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newBare(t, routing.Queue{TTL: 3 * time.Second, DeadLetterExchange: "dlx"}), &store{}
		q.sweeps(s, 10, "empty")
		q.publish(lasts("a", time.Second), body("b"), lasts("c", time.Second), lasts("d", time.Hour))
		q.sweeps(s, 10, "1s")
		time.Sleep(time.Second)
		q.sweeps(s, 10, "a/expired 2s")
		time.Sleep(2*time.Second - 1)
		q.sweeps(s, 10, "1ns")
		time.Sleep(time.Nanosecond)
		q.sweeps(s, 2, "b/expired c/expired more 0s")
		q.sweeps(s, 10, "d/expired empty")
		q.sweeps(s, 10, "empty")
	})
}

// TestExpiryDropped: without dead letters it is gone at once.
func TestExpiryDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q, s := newBare(t, routing.Queue{TTL: time.Second}), &store{}
		q.publish(body("a"), body("b"), body("c"))
		time.Sleep(time.Second)
		q.publish(body("d"))
		q.sweeps(s, 2, "more 0s")
		q.sweeps(s, 2, "1s")
		q.holds("d")
	})
}

// TestSwept: what a sweep took is nobody else's until it is dropped, its lease
// is over, or who took it is gone.
func TestSwept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newBare(t, routing.Queue{MaxLength: 1, DeadLetterExchange: "dlx"})
		one, two := &store{space: &space{queues: map[string]*queue{"q": q.queue}}}, &store{}
		q.publish(body("a"), body("b"), &driver.Message{Body: []byte("t"), Transient: true}, body("c"), body("d"))
		a := q.sweeps(one, 1, "a/maxlen more")
		q.sweeps(one, 1, "b/maxlen more")
		q.drop(a)
		q.sweeps(two, 1, "t/maxlen more")
		q.sweeps(two, 9, "c/maxlen")
		one.unsweep()
		q.sweeps(two, 9, "b/maxlen")
		time.Sleep(sweepLease - 1)
		q.sweeps(one, 9, "")
		time.Sleep(time.Nanosecond)
		again := q.sweeps(one, 9, "b/maxlen t/maxlen c/maxlen")
		time.Sleep(sweepLease)
		q.sweeps(two, 1, "b/maxlen more")
		q.drop(again[1:2]) // by the one who had it before
		q.restart()
		if again = q.sweeps(two, 9, "b/maxlen c/maxlen"); again[0].Seq != a[0].Seq+1 {
			t.Errorf("b has the place %d", again[0].Seq)
		}
		q.holds("d")
	})
}

// TestLimits: only what is ready counts; what is beyond leaves from the head.
func TestLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newBare(t, routing.Queue{MaxLength: 3})
		q.publish(body("1"), body("2"), body("3"), body("4"))
		q.holds("2 3 4")

		q = newBare(t, routing.Queue{MaxLength: 2})
		q.publish(body("1"), body("2"))
		one, two := q.deliver(), q.deliver()
		q.publish(body("3"), body("4"))
		for _, d := range []*emulate.Delivery{one, two} {
			if err := q.settle(d, driver.Nack, 0); err != nil {
				t.Error(err)
			}
		}
		q.holds("3 4")

		q = newBare(t, routing.Queue{MaxLength: 1})
		q.publish(body("1"))
		if err := q.settle(q.deliver(), driver.Nack, time.Second); err != nil {
			t.Error(err)
		}
		q.publish(body("2"))
		if info, err := q.inspect(); err != nil || info.Ready != 2 {
			t.Errorf("what is delayed counts against the limit: %+v, %v", info, err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		q.holds("2")

		q = newBare(t, routing.Queue{MaxBytes: 10})
		q.publish(body("four"), body("5five"), body("x"))
		q.holds("four 5five x")
		q.publish(body("four"), body("5five"), body("xx"))
		q.holds("5five xx")
		q.publish(body("more than ten"))
		q.holds("")

		q = newBare(t, routing.Queue{MaxLength: 2, MaxPriority: 3})
		for i, priority := range []uint8{2, 9, 0, 1} {
			q.publish(&driver.Message{Body: fmt.Append(nil, i), Priority: priority})
		}
		q.holds("3 2")
	})
}

// TestRefused: a full queue refuses what is new, not what it has, nor what
// comes back.
func TestRefused(t *testing.T) {
	q := newBare(t, routing.Queue{MaxLength: 2, MaxBytes: 10, Overflow: routing.RejectPublish})
	refused := func(want string, ms ...*driver.Message) {
		t.Helper()
		if got := strings.Join(q.publish(ms...), " "); got != want {
			t.Errorf("refused: %q, want %q", got, want)
		}
	}
	first := &driver.Message{ID: "1", Body: []byte("1")}
	refused("4", first, body("2"), first, body("4"))
	d := q.deliver()
	refused("fourteen bytes", body("fourteen bytes"), body("6"))
	if err := q.settle(d, driver.Nack, 0); err != nil {
		t.Error(err)
	}
	again := &driver.Message{ID: "8", Body: []byte("8")}
	refused("7 8", body("7"), again)
	q.ready.pop()
	q.ready.pop()
	refused("", again) // it was refused, so it is not there
	q.holds("6 8")
}

// TestPriorities: the highest first, each in order, what was given back before
// what nobody has touched.
func TestPriorities(t *testing.T) {
	q := newBare(t, routing.Queue{MaxPriority: 2})
	for i, priority := range []uint8{0, 1, 2, 255, 1, 0} {
		q.publish(&driver.Message{Body: fmt.Append(nil, i), Priority: priority})
	}
	var ds []*emulate.Delivery
	for range 4 {
		ds = append(ds, q.deliver())
	}
	for _, i := range []int{3, 2, 1} {
		if err := q.settle(ds[i], driver.Nack, 0); err != nil {
			t.Error(err)
		}
	}
	q.holds("3 1 4 0 5")
}

// TestUsage: a queue is idle since its last consumer went, it was touched, or
// the broker began anew; and is deleted on that condition.
func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := newBare(t, routing.Queue{})
		usage := func(want emulate.Usage) {
			t.Helper()
			if got, err := q.usage(); got != want || err != nil {
				t.Errorf("usage %+v, %v, want %+v", got, err, want)
			}
		}
		time.Sleep(time.Minute)
		usage(emulate.Usage{Idle: time.Minute})
		if err := q.touch(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Second)
		usage(emulate.Usage{Idle: time.Second})
		q.restart()
		usage(emulate.Usage{})
		time.Sleep(time.Minute)
		if err := q.remove(emulate.DeleteOptions{Idle: time.Minute + 1}); !errors.Is(err, driver.ErrInUse) {
			t.Errorf("remove before it is due: %v", err)
		}
		if err := q.remove(emulate.DeleteOptions{Idle: time.Minute}); err != nil {
			t.Error(err)
		}
		if _, err := q.usage(); !errors.Is(err, emulate.ErrGone) {
			t.Errorf("usage of what is gone: %v", err)
		}
	})
}

// TestLead: one leads, until its term ends.
func TestLead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var x topology
		for _, step := range []struct {
			client string
			term   time.Duration
			leads  bool
			wait   time.Duration
		}{
			{"a", 5 * time.Second, true, 4 * time.Second},
			{"b", 5 * time.Second, false, 0},
			{"a", 5 * time.Second, true, 4 * time.Second},
			{"b", 5 * time.Second, false, time.Second},
			{"b", 5 * time.Second, true, 0},
			{"a", 0, false, 0},
			{"a", 5 * time.Second, false, 0},
			{"b", 0, false, 0},
			{"a", 5 * time.Second, true, 0},
		} {
			if leads := x.lead(step.client, step.term); leads != step.leads {
				t.Errorf("%+v: leads %t", step, leads)
			}
			time.Sleep(step.wait)
		}
	})
}

// TestSevered: a connection that was cut off and is back hears of it, and what
// it had swept is free.
func TestSevered(t *testing.T) {
	defer Remove(t.Name())
	cfg := driver.Config{OnState: func(driver.State, error) {}}
	one, two := connect(t.Name(), "v", cfg), connect(t.Name(), "v", cfg)
	for _, lose := range []func(string){Sever, Restart} {
		var back []bool
		if err := one.WatchTopology(t.Context(), func(b bool) { back = append(back, b) }); err != nil {
			t.Fatal(err)
		}
		q := newBare(t, routing.Queue{MaxLength: 1, DeadLetterExchange: "dlx"})
		one.Attach(q.def)
		if err := one.CreateQueue(t.Context(), q.def); err != nil {
			t.Fatal(err)
		}
		q.queue = one.queue(q.def)
		q.publish(body("a"), body("b"))
		if swept, err := one.Sweep(t.Context(), q.def, 9); err != nil || len(swept.Dead) != 1 {
			t.Fatalf("%+v, %v", swept, err)
		}
		q.sweeps(two, 9, "")
		lose(t.Name())
		q.sweeps(two, 9, "a/maxlen")
		if !slices.Equal(back, []bool{true}) {
			t.Errorf("the watcher was told %v", back)
		}
		if err := one.DeleteQueue(t.Context(), q.def, emulate.DeleteOptions{}); err != nil {
			t.Error(err)
		}
		one.space.topology.unwatch(one)
	}
}
