package redis

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/routing"
)

func TestPriorities(t *testing.T) {
	x := newScript(t, routing.Queue{MaxPriority: 5})
	x.publish("a", "b priority=5", "c priority=2", "d priority=9", "e priority=2", "f priority=0")
	x.join("one")
	x.expect("first", x.fetch("one", 3), "b:1 d:1 c:1")
	// Given back: before what nobody has touched of its level.
	id := x.held("one")
	x.expect("second", x.fetch("one", 0, id[1]+" 1 0"), "") // c
	x.publish("g priority=5")
	x.expect("third", x.fetch("one", 10), "g:1 c:2 e:1 a:1 f:1")
	// A consumer that dies gives back in order too.
	x.join("two")
	x.call(x.h.fns.leave, append([]any{"one"}, anys(x.held("one"))...)...)
	x.expect("fourth", x.fetch("two", 10), "b:2 d:2 g:2 c:3 e:2 a:2 f:2")
}

// TestForeignByRules: what another program adds has its place and counts.
func TestForeignByRules(t *testing.T) {
	x := newScript(t, routing.Queue{MaxPriority: 5, MaxLength: 2})
	for _, args := range [][]any{{"priority", "1", "body", "a"}, {"priority", "900", "body", "b"}, {"body", "c", "priority", "4"}} {
		if err := x.s.calls().Do(ctxT(t), append([]any{"XADD", x.h.key, "*"}, args...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	x.join("one")
	// c, the head, is dropped.
	x.expect("fetch", x.fetch("one", 10), "a:1 b:1")
}

func TestDropHead(t *testing.T) {
	for _, dlx := range []string{"", "dead"} {
		x := newScript(t, routing.Queue{MaxLength: 3, DeadLetterExchange: dlx})
		x.expect("refused", x.publish("a", "b", "c", "d", "e"), "")
		dead, swept := x.sweep(10)
		x.expect("swept", dead, map[string]string{"": "", "dead": "a:maxlen b:maxlen"}[dlx])
		if n := x.ready(); n != 3 {
			t.Fatalf("%d ready", n)
		}
		// What is held does not count; what comes back is at the head and leaves.
		x.join("one")
		x.expect("fetch", x.fetch("one", 2), "c:1 d:1")
		x.publish("f", "g")
		if n := x.ready(); n != 3 {
			t.Fatalf("%d ready while two are held", n)
		}
		x.fetch("one", 0, x.held("one")[0]+" 1 0", x.held("one")[1]+" 1 -1")
		if dlx != "" {
			dead, _ = x.sweep(10)
			x.expect("swept after the return", dead, "c:maxlen d:maxlen")
			if err := x.s.Drop(ctxT(t), x.q, swept.Dead); err != nil {
				t.Fatal(err)
			}
			if n := len(x.held(".maxlen")); n != 2 {
				t.Fatalf("%d held after the first were dropped", n)
			}
		}
		x.expect("rest", x.fetch("one", 10), "e:1 f:1 g:1")
		want := int64(3)
		if dlx != "" {
			want = 5
		}
		if n := x.s.calls().XLen(ctxT(t), x.h.key).Val(); n != want {
			t.Fatalf("%d entries in the stream, want %d", n, want)
		}
	}
}

func TestDropHeadByBytes(t *testing.T) {
	x := newScript(t, routing.Queue{MaxBytes: 10, MaxPriority: 3})
	x.publish("aaaa", "bbbb", "cccc")
	if n := x.ready(); n != 2 {
		t.Fatalf("%d ready", n)
	}
	x.publish("dd priority=2")
	x.expect("too large by itself", x.publish("eeeeeeeeeee"), "")
	x.join("one")
	x.expect("nothing is left", x.fetch("one", 10), "")
	x.fetch("one", 0)
	x.publish("ffff", "gggg")
	x.expect("the rest", x.fetch("one", 1), "ffff:1")
	x.publish("hhhhhh")
	if n := x.ready(); n != 2 {
		t.Fatalf("%d ready of 10 bytes", n)
	}
	x.fetch("one", 0, x.held("one")[0]+" 1 0")
	x.expect("after the return", x.fetch("one", 10), "gggg:1 hhhhhh:1")
	if size := x.s.calls().HGet(ctxT(t), x.h.key+":rules", "size").Val(); size != "0" {
		t.Fatalf("%s bytes counted of an empty queue", size)
	}
}

func TestRejectPublish(t *testing.T) {
	x := newScript(t, routing.Queue{MaxLength: 2, MaxBytes: 8, Overflow: routing.RejectPublish})
	x.expect("refused", x.publish("aaa", "bbbbbb", "ccc", "d"), "bbbbbb d")
	// The same batch again has the same outcome.
	x.batch--
	x.expect("refused again", x.publish("aaa", "bbbbbb", "ccc", "d"), "bbbbbb d")
	x.join("one")
	x.expect("fetch", x.fetch("one", 2), "aaa:1 ccc:1")
	x.expect("refused", x.publish("eee", "fff", "g"), "g")
	// What comes back is never refused.
	x.fetch("one", 0, x.held("one")[0]+" 1 0", x.held("one")[1]+" 1 0")
	if n := x.ready(); n != 4 {
		t.Fatalf("%d ready", n)
	}
	x.expect("refused", x.publish("h"), "h")
}

// TestLimitsWithConsumersThatWait: what consumers wait for is as good as
// delivered, as it is on RabbitMQ; it is dropped where they die first.
func TestLimitsWithConsumersThatWait(t *testing.T) {
	x := newScript(t, routing.Queue{MaxLength: 2, DeadLetterExchange: "dead"})
	x.join("one")
	x.fetch("one", 3)
	x.publish("a", "b", "c", "d", "e", "f")
	dead, _ := x.sweep(10)
	x.expect("swept", dead, "d:maxlen")
	x.expect("fetch", x.fetch("one", 3), "a:1 b:1 c:1")
	if n := x.ready(); n != 2 {
		t.Fatalf("%d ready", n)
	}
	// What it acknowledges makes room.
	x.call(x.h.fns.settle, append([]any{"one", "60000", 3}, anys(x.held("one"))...)...)
	x.publish("f2", "f3", "f4")
	dead, _ = x.sweep(10)
	x.expect("swept after acknowledgements", dead, "")
	x.expect("fetch", x.fetch("one", 3), "e:1 f:1 f2:1")
	x.call(x.h.fns.leave, "one")
	dead, _ = x.sweep(10)
	x.expect("swept after the first left", dead, "e:maxlen f:maxlen f2:maxlen")
	x.join("two")
	x.fetch("two", 4)
	x.expect("two has them", fmt.Sprint(len(x.held("two"))), "2")
	x.call(x.h.fns.settle, append([]any{"two", "60000", 2}, anys(x.held("two"))...)...)
	x.publish("g", "h", "i")
	x.expect("all are promised", fmt.Sprint(x.ready()), "3")
	x.call(x.h.fns.leave, "two")
	dead, _ = x.sweep(10)
	x.expect("swept after a consumer left", dead, "g:maxlen")
	y := newScript(t, routing.Queue{MaxLength: 1, MaxBytes: 4, Overflow: routing.RejectPublish})
	y.join("one")
	y.fetch("one", 2)
	y.expect("refused", y.publish("aaaa", "bbbbb", "cccc", "dddd", "e"), "bbbbb e")
}

func TestSingleActiveConsumer(t *testing.T) {
	x := newScript(t, routing.Queue{SingleActiveConsumer: true})
	for _, name := range []string{"z", "a", "m"} {
		x.join(name)
	}
	x.publish("1", "2", "3", "4")
	x.expect("a stands by", x.fetch("a", 10), "")
	x.expect("z", x.fetch("z", 1), "1:1")
	// A new name after a lost answer keeps its turn.
	x.call(x.h.fns.rename, append([]any{"z", "z2", "60000"}, anys(x.held("z"))...)...)
	x.expect("a stands by", x.fetch("a", 10), "")
	x.expect("z2", x.fetch("z2", 1), "2:1")
	// One that withdraws keeps what it holds.
	x.call(x.h.fns.withdraw, "z2")
	x.expect("m stands by", x.fetch("m", 10), "")
	x.expect("a", x.fetch("a", 1), "3:1")
	if n := len(x.held("z2")); n != 2 {
		t.Fatalf("z2 holds %d", n)
	}
	// One whose lease has run out.
	over := x.now().Add(20 * time.Millisecond).UnixMilli()
	if err := x.s.calls().ZAdd(ctxT(t), x.h.key+":consumers", zOf("a", float64(over))).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "time does not pass", func() bool { return x.now().UnixMilli() > over+20 })
	x.expect("m", x.fetch("m", 10), "3:2 4:1")
	x.call(x.h.fns.leave, "z2")
	x.expect("m", x.fetch("m", 10), "1:1 2:1")
}

func TestPurgeByRules(t *testing.T) {
	x := newScript(t, routing.Queue{MaxPriority: 9, MaxBytes: 100, MaxLength: 4, DeadLetterExchange: "dead"})
	x.join("one")
	x.publish("a priority=3", "b priority=9", "c", "d priority=3", "e")
	x.expect("fetch", x.fetch("one", 1), "a:1") // b was dropped
	x.fetch("one", 0, x.held("one")[0]+" 1 3600000")
	x.expect("fetch", x.fetch("one", 1), "d:1")
	n, err := x.s.Purge(ctxT(t), x.q)
	if err != nil || n != 3 {
		t.Fatalf("purged %d, %v", n, err)
	}
	if n := x.ready(); n != 0 {
		t.Fatalf("%d ready", n)
	}
	dead, _ := x.sweep(10)
	x.expect("swept", dead, "b:maxlen")
	if ids := x.held("one"); len(ids) != 1 {
		t.Fatalf("held: %v", ids)
	}
	x.publish(strings.Repeat("x", 100))
	if n := x.ready(); n != 1 {
		t.Fatalf("%d ready: the bytes of what was purged count still", n)
	}
}

// TestPurgeInParts: no call removes more than it is told to, and what comes
// meanwhile stays.
func TestPurgeInParts(t *testing.T) {
	for _, rq := range []routing.Queue{{}, {MaxPriority: 2}, {MaxBytes: 1 << 20}} {
		for _, held := range []bool{true, false} {
			x := newScript(t, rq)
			x.join("one")
			batch := func(n int) {
				var ms []string
				for i := range n {
					ms = append(ms, fmt.Sprintf("m priority=%d", i%3))
				}
				x.publish(ms...)
			}
			batch(2)
			x.fetch("one", 2)
			ids := x.held("one")
			settle := []any{"one", "60000", 0, ids[0], 1, 0} // one is back
			if !held {
				settle = append(settle, ids[1], 1, 60000)
			}
			x.call(x.h.fns.settle, settle...)
			batch(2500)
			to, all, calls := "", int64(0), 0
			for {
				v := x.call(x.h.fns.purge, to, 1000).([]any)
				calls++
				all += v[0].(int64)
				if to = v[1].(string); to == "" {
					break
				}
				if v[0] != int64(1000) {
					t.Errorf("%+v: a part of %v", rq, v[0])
				}
				batch(1)
			}
			parts := 3
			if !held && !hasRules(x.q) {
				parts = 1 // the server can do it by itself, at no cost
			}
			want := int64(2501 + boolInt(!held))
			if all != want || calls != parts || x.ready() != parts-1 || len(x.held("one")) != boolInt(held) {
				t.Errorf("%+v, held %v: %d of %d removed in %d parts, %d are ready", rq, held, all, want, calls, x.ready())
			}
			if n := x.call(x.h.fns.purge, "", 1000).([]any)[0]; n != int64(parts-1) || x.ready() != 0 {
				t.Errorf("%+v, held %v: then %d removed", rq, held, n)
			}
			if size, _ := x.s.calls().HGet(ctxT(t), x.h.key+":rules", "size").Result(); rq.MaxBytes > 0 && size != "0" {
				t.Errorf("%+v: %s bytes are left", rq, size)
			}
		}
	}
}
