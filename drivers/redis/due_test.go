package redis

import (
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// delay puts n messages into the queue, given back with a delay that is over.
func (x *script) delay(n int) {
	x.t.Helper()
	x.join("earlier")
	const part = 500
	for i := 0; i < n; i += part {
		var ms []string
		for j := i; j < min(i+part, n); j++ {
			ms = append(ms, fmt.Sprint(j))
		}
		x.publish(ms...)
		x.fetch("earlier", len(ms))
		args := []any{"earlier", "60000", 0}
		for _, id := range x.held("earlier") {
			args = append(args, id, 1, 3600000)
		}
		x.call(x.h.fns.settle, args...)
	}
	x.call(x.h.fns.leave, "earlier")
	key := x.h.key + ":delayed"
	if err := x.s.calls().Do(ctxT(x.t), "ZUNIONSTORE", key, 1, key, "WEIGHTS", 0).Err(); err != nil {
		x.t.Fatal(err)
	}
}

func (x *script) delayed() int64 {
	x.t.Helper()
	n, err := x.s.calls().ZCard(ctxT(x.t), x.h.key+":delayed").Result()
	if err != nil {
		x.t.Fatal(err)
	}
	return n
}

// TestDueInParts: however many are due at one moment, no call makes more of them
// ready than a chunk; whoever made it is to come again at once.
func TestDueInParts(t *testing.T) {
	for _, rq := range []routing.Queue{{}, {MaxPriority: 1}} {
		x := newScript(t, rq)
		const n, chunk = 2500, 1000
		x.delay(n)
		x.join("one")
		for left := int64(n); left > 0; {
			wait := x.beat("one")
			left = max(left-chunk, 0)
			if got := x.delayed(); got != left {
				t.Fatalf("%+v: %d are delayed, want %d", rq, got, left)
			}
			if left > 0 && wait != 1 {
				t.Fatalf("%+v: comes again after %d ms while %d are due", rq, wait, left)
			}
		}
		if n := x.ready(); n != 2500 {
			t.Fatalf("%+v: %d ready", rq, n)
		}
		// A sweep has them in parts too, and says that there are more.
		x = newScript(t, rq)
		x.delay(1500)
		for _, want := range []int64{500, 0} {
			_, swept := x.sweep(10)
			if got := x.delayed(); got != want || swept.More != (want > 0) {
				t.Fatalf("%+v: %d are delayed after a sweep, more %v, want %d", rq, got, swept.More, want)
			}
		}
	}
}

// TestDueAtOnce: a subscriber has all that were due, without waits between the
// parts.
func TestDueAtOnce(t *testing.T) {
	for _, rq := range []routing.Queue{{Name: "q"}, {Name: "q", MaxPriority: 1}} {
		conn, _ := dial(t, testbroker.URL(t, "redis"))
		declareQueues(t, conn, rq)
		const n = 3000
		ms := make([]*driver.Message, n)
		for i := range ms {
			ms[i] = text("x")
		}
		if err := publish(t, conn, "q", ms...); err != nil {
			t.Fatal(err)
		}
		sub := subscribe(t, conn, "q", n)
		take := func(attempt int, o driver.Outcome, delay time.Duration) {
			t.Helper()
			var ds []*driver.Delivery
			for buf := make([]*driver.Delivery, n); len(ds) < n; {
				k, err := sub.Receive(ctxT(t), buf)
				if err != nil {
					t.Fatal(err)
				}
				ds = append(ds, buf[:k]...)
			}
			for _, d := range ds {
				if d.Attempt != attempt {
					t.Fatalf("attempt %d, want %d", d.Attempt, attempt)
				}
				if err := sub.Settle(ctxT(t), d, o, delay); err != nil {
					t.Fatal(err)
				}
			}
		}
		take(1, driver.Nack, 500*time.Millisecond)
		take(2, driver.Ack, 0)
		info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	}
}
