package redis

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func zOf(member string, score float64) goredis.Z { return goredis.Z{Member: member, Score: score} }

// sweepUntil sweeps until so many were given up.
func (x *script) sweepUntil(n int) string {
	x.t.Helper()
	var all []string
	until(x.t, fmt.Sprintf("fewer than %d were given up", n), func() bool {
		dead, _ := x.sweep(10)
		all = append(all, strings.Fields(dead)...)
		return len(all) >= n
	})
	return strings.Join(all, " ")
}

// TestSweep: by the head, with dead letters and without, with rules and without.
func TestSweep(t *testing.T) {
	for _, rq := range []routing.Queue{
		{}, {DeadLetterExchange: "dead"},
		{MaxLength: 100}, {DeadLetterExchange: "dead", MaxPriority: 3, MaxBytes: 1000},
	} {
		t.Run(fmt.Sprintf("%+v", rq), func(t *testing.T) {
			x := newScript(t, rq)
			dlx := rq.DeadLetterExchange != ""
			if dead, swept := x.sweep(10); dead != "" || !swept.Empty || swept.More || !swept.Next.IsZero() {
				t.Fatalf("of an empty queue: %q, %+v", dead, swept)
			}
			x.publish("a ttl=1", "b ttl=1", "c ttl=3600000", "d ttl=1")
			begin := x.now()
			if dlx {
				x.expect("swept", x.sweepUntil(2), "a:expired b:expired")
			} else {
				until(t, "two expired", func() bool {
					if dead, _ := x.sweep(10); dead != "" {
						t.Fatalf("returned %q without dead letters", dead)
					}
					return x.ready() == 2
				})
			}
			// c hides d.
			dead, swept := x.sweep(10)
			if dead != "" || swept.Empty || swept.More || swept.Next.Sub(begin).Abs() > 2*time.Hour || swept.Next.Before(begin) {
				t.Fatalf("%q, %+v", dead, swept)
			}
			if n := x.ready(); n != 2 {
				t.Fatalf("%d ready", n)
			}
			// What was given back expires in its place too, at its own time.
			x.join("one")
			x.expect("fetch", x.fetch("one", 2), "c:1 d:1")
			id := x.held("one")
			x.fetch("one", 0, id[0]+" 1 3600000", id[1]+" 1 0")
			dead, swept = x.sweep(1)
			x.expect("swept", dead, map[bool]string{true: "d:expired"}[dlx])
			if swept.Empty || dlx && swept.Dead[0].Attempt != 1 {
				t.Fatalf("%+v", swept)
			}
			if dead, swept = x.sweep(1); dead != "" || swept.Empty || !swept.Next.IsZero() {
				t.Fatalf("of a delayed one: %q, %+v", dead, swept)
			}
			want := int64(1)
			if dlx {
				want = 4
			}
			if n := x.s.calls().XLen(ctxT(t), x.h.key).Val(); n != want {
				t.Fatalf("%d entries, want %d", n, want)
			}
		})
	}
}

func TestSweepByQueueTTL(t *testing.T) {
	x := newScript(t, routing.Queue{TTL: time.Minute, DeadLetterExchange: "dead"})
	x.publish("a")
	stored := storedAt(t, x, x.h.key)
	x.publish("b ttl=3600000")
	if dead, swept := x.sweep(10); dead != "" || !swept.Next.Equal(stored.Add(time.Minute)) {
		t.Fatalf("%q, %+v, stored at %v", dead, swept, stored)
	}
	// Each sweep says what the TTL is: nobody waits for the minute.
	const ttl = time.Second
	x.q.TTL = ttl
	x.expect("swept", x.sweepUntil(2), "a:expired b:expired")
	if took := x.now().Sub(stored); took < ttl {
		t.Fatalf("after %v", took)
	}
	// Those of the queue of delayed messages wait for their delay.
	y := &emulate.Queue{Queue: routing.Queue{Name: "polymq.delayed"}}
	if ownTTL(y) || !ownTTL(x.q) {
		t.Fatal("whose own TTL counts")
	}
}

// TestSweptComesAgain: what a mover did not drop within the lease, and nobody
// else ever.
func TestSweptComesAgain(t *testing.T) {
	x := newScript(t, routing.Queue{DeadLetterExchange: "dead", MaxLength: 1})
	x.publish("a ttl=1", "b ttl=1", "c")
	begin := x.now()
	x.expect("swept", x.sweepUntil(2), "a:maxlen b:maxlen")
	if dead, _ := x.sweep(10); dead != "" && x.now().Sub(begin) < x.s.cfg.lease {
		t.Fatalf("at once: %q", dead)
	}
	x.join("one")
	x.expect("fetch", x.fetch("one", 10), "c:1")
	x.expect("again", x.sweepUntil(2), "a:maxlen b:maxlen")
	if took := x.now().Sub(begin); took < x.s.cfg.lease*9/10 {
		t.Fatalf("again after %v", took)
	}
	var ds []*emulate.Delivery
	until(t, "no third time", func() bool {
		_, swept := x.sweep(10)
		ds = append(ds, swept.Dead...)
		return len(ds) >= 2
	})
	for range 2 {
		if err := x.s.Drop(ctxT(t), x.q, ds); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(x.held(".maxlen")); n != 0 {
		t.Fatalf("%d left", n)
	}
}

func TestSweepMost(t *testing.T) {
	x := newScript(t, routing.Queue{DeadLetterExchange: "dead", TTL: time.Millisecond})
	for range 3 {
		x.publish("a", "b", "c", "d", "e")
	}
	id := x.h.key
	until(t, "none expired", func() bool { return x.now().After(storedAt(t, x, id).Add(2 * time.Millisecond)) })
	for _, want := range []int{7, 7, 1} {
		_, swept := x.sweep(7)
		if len(swept.Dead) != want || swept.More != (want == 7) {
			t.Fatalf("%d, more %v, want %d", len(swept.Dead), swept.More, want)
		}
	}
}

// TestSweepBytes: large messages come in several answers, each by itself where it is
// larger than an answer is to be.
func TestSweepBytes(t *testing.T) {
	large := []string{strings.Repeat("a", 3<<19), strings.Repeat("b", 3<<19), strings.Repeat("c", 5<<20), strings.Repeat("d", 3<<19)}
	for _, c := range []struct {
		rq   routing.Queue
		want []int
	}{
		{routing.Queue{DeadLetterExchange: "dead", MaxLength: 1}, []int{2, 1, 1}},
		{routing.Queue{DeadLetterExchange: "dead", TTL: time.Millisecond}, []int{2, 1, 2}},
		{routing.Queue{DeadLetterExchange: "dead", TTL: time.Millisecond, MaxPriority: 1}, []int{2, 1, 2}},
		{routing.Queue{TTL: time.Millisecond}, []int{0, 0}},
	} {
		x := newScript(t, c.rq)
		for _, body := range append(large, "e") {
			x.publish(body)
		}
		until(t, "none expired", func() bool { return x.now().After(storedAt(t, x, x.h.key).Add(2 * time.Millisecond)) })
		for i, want := range c.want {
			_, swept := x.sweep(10)
			if len(swept.Dead) != want || swept.More != (i < len(c.want)-1) {
				t.Errorf("%+v: sweep %d: %d, more %v, want %d", c.rq, i, len(swept.Dead), swept.More, want)
			}
		}
		if n, want := x.ready(), boolInt(c.rq.MaxLength > 0); n != want {
			t.Errorf("%+v: %d ready", c.rq, n)
		}
	}
}

// storedAt is when the newest entry was stored.
func storedAt(t *testing.T, x *script, key string) time.Time {
	es, err := x.s.calls().XRevRangeN(ctxT(t), key, "+", "-", 1).Result()
	if err != nil || len(es) != 1 {
		t.Fatal(es, err)
	}
	n, err := sequence([]byte(es[0].ID))
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(int64(n >> sequenceBits))
}

func TestUsage(t *testing.T) {
	for _, rq := range []routing.Queue{{}, {MaxLength: 5, SingleActiveConsumer: true}} {
		x := newScript(t, rq)
		ctx := ctxT(t)
		get := func() emulate.Usage {
			t.Helper()
			u, err := x.s.Usage(ctx, x.q)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
		const while = 60 * time.Millisecond
		until(t, "it was never idle", func() bool { u := get(); return u.Idle > while && !u.Used && u.Consumers == 0 })
		if err := x.s.DeleteQueue(ctx, x.q, emulate.DeleteOptions{Idle: time.Hour}); !errors.Is(err, driver.ErrInUse) {
			t.Fatalf("DeleteQueue of one that was idle for a moment: %v", err)
		}
		at := x.now().Truncate(time.Millisecond) // it counts whole ones
		if err := x.s.Touch(ctx, x.q); err != nil {
			t.Fatal(err)
		}
		// Without Touch it would be idle since long before that.
		if u := get(); u.Idle > x.now().Sub(at) {
			t.Fatalf("after Touch: %+v", u)
		}
		x.join("one")
		until(t, "time does not pass", func() bool { return get() == emulate.Usage{Consumers: 1, Used: true} })
		if err := x.s.DeleteQueue(ctx, x.q, emulate.DeleteOptions{Idle: time.Nanosecond}); !errors.Is(err, driver.ErrInUse) {
			t.Fatalf("DeleteQueue of one with a consumer: %v", err)
		}
		// A dead consumer is none.
		if err := x.s.calls().ZAdd(ctx, x.h.key+":consumers", zOf("one", 1)).Err(); err != nil {
			t.Fatal(err)
		}
		if u := get(); u.Consumers != 0 || !u.Used || u.Idle > while {
			t.Fatalf("after its consumer died: %+v", u)
		}
		until(t, "it is not idle", func() bool { return get().Idle > while })
		if err := x.s.DeleteQueue(ctx, x.q, emulate.DeleteOptions{Idle: while}); err != nil {
			t.Fatal(err)
		}
		if _, err := x.s.Usage(ctx, x.q); !errors.Is(err, emulate.ErrGone) {
			t.Errorf("Usage of a queue that is gone: %v", err)
		}
		if err := x.s.Touch(ctx, x.q); !errors.Is(err, emulate.ErrGone) {
			t.Errorf("Touch of a queue that is gone: %v", err)
		}
		if _, err := x.s.Sweep(ctx, x.q, 1); !errors.Is(err, emulate.ErrGone) {
			t.Errorf("Sweep of a queue that is gone: %v", err)
		}
		if err := x.s.Drop(ctx, x.q, nil); err != nil {
			t.Errorf("Drop of a queue that is gone: %v", err)
		}
		if keys := x.s.calls().Keys(ctx, x.h.key+"*").Val(); len(keys) > 0 {
			t.Errorf("left over: %v", keys)
		}
	}
}

func TestLead(t *testing.T) {
	url := testbroker.URL(t, "redis")
	_, one := dial(t, url)
	_, two := dial(t, url)
	lead := func(s *store, client string, term time.Duration, want bool) {
		t.Helper()
		if got, err := s.Lead(ctxT(t), client, term); err != nil || got != want {
			t.Fatalf("%s leads: %v, %v, want %v", client, got, err, want)
		}
	}
	// Of clients of their own: the connections' may lead by themselves.
	if err := one.calls().Del(ctxT(t), one.namespace()+":leader").Err(); err != nil {
		t.Fatal(err)
	}
	lead(one, "a", 20*time.Second, true)
	lead(two, "b", 20*time.Second, false)
	lead(one, "a", 20*time.Second, true)
	lead(two, "b", 0, false)
	lead(two, "b", 20*time.Second, false)
	lead(one, "a", 0, false)
	lead(two, "b", 50*time.Millisecond, true)
	until(t, "the term does not end", func() bool {
		got, err := one.Lead(ctxT(t), "a", 20*time.Second)
		return err == nil && got
	})
}

func TestClock(t *testing.T) {
	_, s := dial(t, testbroker.URL(t, "redis"))
	for range 20 {
		if err := s.clock.read(ctxT(t)); err != nil {
			t.Fatal(err)
		}
	}
	before := s.Now()
	at, err := s.calls().Time(ctxT(t)).Result()
	after := s.Now()
	// As much as it says itself: how long the server took to answer is the machine's.
	r := s.clock.latest.Load()
	off := r.within + time.Since(r.base)/clockDrift + time.Millisecond
	if err != nil || at.Before(before.Add(-off)) || at.After(after.Add(off)) {
		t.Fatalf("the server's %v is not within %v and %v, %v", at, before, after, err)
	}
	now := time.Now()
	good := &reading{now, now.Add(time.Hour), time.Millisecond}
	for name, c := range map[string]struct {
		r    reading
		want bool
	}{
		"the same, slower":             {reading{now.Add(time.Second), now.Add(time.Hour + time.Second), 50 * time.Millisecond}, false},
		"the same, faster":             {reading{now.Add(time.Second), now.Add(time.Hour + time.Second), time.Microsecond}, true},
		"the same, slower, much later": {reading{now.Add(time.Minute), now.Add(time.Hour + time.Minute), 50 * time.Millisecond}, true},
		"another clock, slower":        {reading{now.Add(time.Second), now.Add(time.Minute), 50 * time.Millisecond}, true},
	} {
		if got := c.r.better(good); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
