package redis

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

var calls = regexp.MustCompile(`(?m)^cmdstat_(\w+):calls=(\d+)`)

// commands is how many commands the server has executed, those of functions too,
// whoever sent them.
func (x *script) commands() int {
	x.t.Helper()
	v, err := x.s.calls().Info(ctxT(x.t), "commandstats").Result()
	if err != nil {
		x.t.Fatal(err)
	}
	sum := 0
	for _, m := range calls.FindAllStringSubmatch(v, -1) {
		n, _ := strconv.Atoi(m[2])
		sum += n
	}
	return sum
}

// TestTrimInOnePass: what it takes to bring a queue back to its limits does not
// grow with what is promised, nor is a level that is empty looked at.
func TestTrimInOnePass(t *testing.T) {
	url := with(testbroker.Start(t, "redis").URL(), "lease=2s")
	for _, c := range []struct {
		rq       routing.Queue
		promised int
	}{
		{routing.Queue{MaxLength: 10}, 500},
		{routing.Queue{MaxLength: 10, DeadLetterExchange: "dead"}, 500},
		{routing.Queue{MaxLength: 10, MaxPriority: 255}, 500},
		{routing.Queue{MaxBytes: 40}, 500},
		{routing.Queue{MaxBytes: 40}, 1},
	} {
		rq, promised := c.rq, c.promised
		x := newScriptAt(t, url, rq)
		const held = 3000
		x.join("one")
		x.fetch("one", held)
		for i := 0; i < held; i += 500 {
			var ms []string
			for j := range 500 {
				ms = append(ms, fmt.Sprintf("%04d", i+j))
			}
			x.publish(ms...)
		}
		x.fetch("one", held)
		x.expect("one has all", fmt.Sprint(len(x.held("one"))), fmt.Sprint(held))
		x.join("two")
		x.fetch("two", promised)
		before := x.commands()
		x.call(x.h.fns.leave, "one")
		// One for each whose level or size has to be read.
		level, size := boolInt(rq.MaxPriority > 0), boolInt(rq.MaxBytes > 0)
		most := 200 + level*held + size*2*held
		if n := x.commands() - before; n > most {
			t.Errorf("%+v: %d commands", rq, n)
		}
		var want []string
		for i := range promised {
			want = append(want, fmt.Sprintf("%04d:1", i))
		}
		for i := held - 10; i < held; i++ {
			want = append(want, fmt.Sprintf("%04d:1", i))
		}
		x.expect("what is left", x.fetch("two", held), strings.Join(want, " "))

		// A batch to a full queue.
		x = newScriptAt(t, url, rq)
		x.join("one")
		x.fetch("one", promised)
		var ms []string
		for i := range promised + 10 {
			ms = append(ms, fmt.Sprintf("%04d", i))
		}
		x.publish(ms...)
		before = x.commands()
		x.publish(ms...)
		if n := x.commands() - before; n > (3+2*size)*len(ms)+200 {
			t.Errorf("%+v: %d commands for a batch of %d", rq, n, len(ms))
		}
		if n := x.ready(); n != promised+10 {
			t.Errorf("%d ready", n)
		}
	}
}

// TestBytesThatArePromised count in no limit: neither is anything dropped for them
// nor refused.
func TestBytesThatArePromised(t *testing.T) {
	bodies := func(sizes ...int) (ms []string) {
		for _, n := range sizes {
			ms = append(ms, strings.Repeat("x", n))
		}
		return ms
	}
	for _, overflow := range []routing.Overflow{routing.DropHead, routing.RejectPublish} {
		for _, priority := range []int{0, 3} {
			for _, batch := range []bool{true, false} {
				x := newScript(t, routing.Queue{MaxBytes: 100, MaxPriority: priority, Overflow: overflow})
				publish := func(ms ...string) (refused string) {
					if batch {
						return x.publish(ms...)
					}
					for _, m := range ms {
						refused += x.publish(m)
					}
					return refused
				}
				x.join("one")
				x.fetch("one", 1)
				x.expect("refused", publish(bodies(90, 5, 5, 5, 80, 5)...), "")
				if n := x.ready(); n != 6 {
					t.Fatalf("%q, %d: %d ready", overflow, priority, n)
				}
				switch refused := publish(bodies(1)...); {
				case overflow == routing.RejectPublish:
					x.expect("refused beyond the limit", refused, "x")
				case x.ready() != 6:
					t.Fatalf("%d ready beyond the limit", x.ready())
				}
				if n := len(x.fetch("one", 1)); n != len("x:1")+89 {
					t.Fatalf("%d bytes were promised", n)
				}
			}
		}
	}
}

// TestBatchByBytesAndLevels: what a batch pushes out is what its messages would have,
// one after another.
func TestBatchByBytesAndLevels(t *testing.T) {
	ms := []string{"aaaaa", "bbbbbb priority=2", "ccccc priority=3"}
	x := newScript(t, routing.Queue{MaxBytes: 10, MaxPriority: 5})
	x.publish(ms...)
	y := newScript(t, routing.Queue{MaxBytes: 10, MaxPriority: 5})
	for _, m := range ms {
		y.publish(m)
	}
	for _, s := range []*script{x, y} {
		s.join("one")
		s.expect("what stayed", s.fetch("one", 10), "ccccc:1 aaaaa:1")
	}
}

// TestAllThatThereIsRoomFor is promised, however little a fetch takes at once.
func TestAllThatThereIsRoomFor(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declareQueues(t, conn, routing.Queue{Name: "q", MaxLength: 1})
	const n = 300
	sub := subscribe(t, conn, "q", n)
	var ms []*driver.Message
	var want []string
	for i := range n {
		want = append(want, fmt.Sprint(i))
		ms = append(ms, text(want[i]))
	}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	settle(t, sub, driver.Ack, expect(t, sub, want...)...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestRoomAtOnce: what a consumer has room for is promised before it fetches.
func TestRoomAtOnce(t *testing.T) {
	for _, single := range []bool{false, true} {
		x := newScript(t, routing.Queue{MaxLength: 1, SingleActiveConsumer: single})
		for _, name := range []string{"one", "two"} {
			if v := x.call(x.h.fns.join, name, "60000", "", 2); v != int64(1) {
				t.Fatal(v)
			}
		}
		x.publish("a", "b", "c", "d", "e", "f", "g")
		want := 5
		if single {
			want = 3 // the second has not its turn
		}
		if n := x.ready(); n != want {
			t.Errorf("single %v: %d of 7 stayed, want %d", single, n, want)
		}
	}
}

// TestPromiseLapses: nothing is kept for long for a consumer that is not heard of,
// as long as its lease may be.
func TestPromiseLapses(t *testing.T) {
	silent := func(x *script, consumer string, room int) {
		t.Helper()
		at := x.now().Add(-4 * time.Second).UnixMilli()
		if err := x.s.calls().HSet(ctxT(t), x.h.key+":rooms", consumer, fmt.Sprintf("%d %d", room, at)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	x := newScript(t, routing.Queue{MaxLength: 2})
	x.join("one")
	x.fetch("one", 3)
	x.publish("a", "b", "c", "d", "e")
	silent(x, "one", 3)
	if n := x.ready(); n != 2 {
		t.Fatalf("%d ready", n)
	}
	x.call(x.h.fns.settle, "one", "60000", 0) // it lives, but does not wait
	x.publish("f")
	x.expect("when it is back", x.fetch("one", 3), "e:1 f:1")
	x.publish("g", "h", "i", "j")
	if n := x.ready(); n != 3 {
		t.Fatalf("%d ready when it waits again", n)
	}
	silent(x, "one", 1)
	x.publish("k")
	x.expect("of a publish", x.fetch("one", 5), "j:1 k:1")
	// What it acknowledges is room all the same, if it takes messages still.
	silent(x, "one", 0)
	x.call(x.h.fns.inspect)
	x.call(x.h.fns.settle, append([]any{"one", "60000", 2}, anys(x.held("one")[:2])...)...)
	x.publish("l", "m", "n", "o", "p")
	if n := x.ready(); n != 4 {
		t.Fatalf("%d ready after two were acknowledged", n)
	}
	x.call(x.h.fns.withdraw, "one")
	x.call(x.h.fns.settle, append([]any{"one", "60000", 2}, anys(x.held("one")[:2])...)...)
	if n := x.ready(); n != 2 {
		t.Fatalf("%d ready after it withdrew", n)
	}
	y := newScript(t, routing.Queue{MaxLength: 2, Overflow: routing.RejectPublish})
	y.join("one")
	y.fetch("one", 3)
	silent(y, "one", 3)
	y.expect("refused", y.publish("a", "b", "c"), "c")
}

// TestRoomOfAFewIsHeardOf: who has room for less than is worth a fetch of a plain
// queue does not keep silent about it for long.
func TestRoomOfAFewIsHeardOf(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declareQueues(t, conn, routing.Queue{Name: "q", MaxLength: 100})
	var ms []*driver.Message
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
		ms = append(ms, text(want[i]))
	}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	ds := expect(t, sub, want[:5]...)
	info(t, conn, "q", driver.QueueInfo{Ready: 10, Unsettled: 10, Consumers: 1})
	begin := time.Now()
	settle(t, sub, driver.Ack, ds[0])
	info(t, conn, "q", driver.QueueInfo{Ready: 9, Unsettled: 10, Consumers: 1})
	if took := time.Since(begin); took > s.cfg.lease/4 { // not only when it must be heard of
		t.Errorf("the next came after %v", took)
	}
}

// TestWhoWaitsIsHeardOf: a subscriber that waits renews what is promised to it.
func TestWhoWaitsIsHeardOf(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declareQueues(t, conn, routing.Queue{Name: "q", MaxLength: 1})
	subscribe(t, conn, "q", 7)
	seen := map[string]time.Time{}
	until(t, "it is not heard of", func() bool {
		keys, err := s.calls().Keys(ctxT(t), s.cfg.prefix+":*:rooms").Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			for _, v := range s.calls().HGetAll(ctxT(t), k).Val() {
				if !strings.HasPrefix(v, "7 ") {
					t.Fatalf("room: %q", v)
				}
				if seen[v].IsZero() {
					seen[v] = time.Now()
				}
			}
		}
		return len(seen) > 2
	})
	first, last := time.Now(), time.Time{}
	for _, at := range seen {
		if at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
	}
	if took := last.Sub(first); took > s.cfg.lease/2 { // three times by its lease alone take longer
		t.Errorf("heard of three times in %v", took)
	}
}
