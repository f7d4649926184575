package redis

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// read is a read of the stream under a name, whatever became of that.
func (x *script) read(consumer string) {
	x.t.Helper()
	if err := x.s.calls().Do(ctxT(x.t), "XREADGROUP", "GROUP", group, consumer, "COUNT", "1", "STREAMS", x.h.key, ">").Err(); err != nil {
		x.t.Fatal(err)
	}
}

// TestReadAfterTheLease: what was read under a name whose lease had run out was
// seen by nobody, struck or not; what was read before counts.
func TestReadAfterTheLease(t *testing.T) {
	x := newScript(t, routing.Queue{})
	x.publish("a", "b", "c")
	x.join("lame")
	x.read("lame")
	over := x.now().Add(20 * time.Millisecond).UnixMilli()
	if err := x.s.calls().ZAdd(ctxT(t), x.h.key+":consumers", zOf("lame", float64(over))).Err(); err != nil {
		t.Fatal(err)
	}
	until(t, "time does not pass", func() bool { return x.now().UnixMilli() > over+20 })
	x.read("lame") // its lease is over
	x.join("one")
	x.expect("after the blow", x.fetch("one", 2), "a:2 b:1")
	x.read("lame") // it is struck
	if v := x.call(x.h.fns.tend, "one", "60000", "1", "0", "0", "0"); v.([]any)[1] != int64(1) {
		t.Fatalf("what a stranger read is not given back: %v", v)
	}
	x.expect("of a stranger", x.fetch("one", 2), "c:1")
}

// TestLateReadIsNotSeen: a subscriber whose read came to the server only when its
// lease had run out has it again, as one delivery.
func TestLateReadIsNotSeen(t *testing.T) {
	url := testbroker.URL(t, "redis") + "&lease=1s"
	p := newLossy(t, url)
	one, _ := dial(t, p.url)
	two, _ := dial(t, url)
	declare(t, two, "q")
	sub := subscribe(t, one, "q", 10)
	for i := range 2 {
		p.hold("BLOCK", 1500*time.Millisecond)
		info(t, two, "q", driver.QueueInfo{}) // its lease is over, so Inspect strikes it
		if err := publish(t, two, "q", text(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		p.hold("", 0)
		d := expect(t, sub, fmt.Sprint(i))
		if d[0].Attempt != 1 {
			t.Errorf("attempt %d", d[0].Attempt)
		}
		settle(t, sub, driver.Ack, d...)
		info(t, two, "q", driver.QueueInfo{Consumers: 1})
	}
}

// TestStruckOnce: who is struck, and is about to join again, is not taken for struck once
// more, since the server does not know the next name yet.
func TestStruckOnce(t *testing.T) {
	url := testbroker.URL(t, "redis")
	p := newLossy(t, url)
	conn, s := dial(t, p.url)
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 10)
	c := onlyConsumer(t, s)
	life := c.current()
	p.hold(plainFunctions.join, 200*time.Millisecond)
	if _, err := s.fcall(ctxT(t), c.fns.leave, c.key, c.base+"-1"); err != nil {
		t.Fatal(err)
	}
	until(t, "it is not struck", func() bool { return c.current() > life })
	if _, err := c.Extend(ctxT(t), nil); err != nil {
		t.Fatal(err)
	}
	p.hold("", 0)
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	settle(t, sub, driver.Ack, expect(t, sub, "a")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	if c.current() != life+1 {
		t.Errorf("it was struck %d times", c.current()-life)
	}
}

// TestHeartbeatWakesOthers: what comes back while a consumer without room looks
// after it is for others.
func TestHeartbeatWakesOthers(t *testing.T) {
	for _, rq := range []routing.Queue{{}, {MaxPriority: 1}} {
		x := newScript(t, rq)
		x.publish("a")
		x.join("one")
		x.fetch("one", 1)
		begin := x.now()
		x.fetch("one", 0, x.held("one")[0]+" 1 50")
		if err := x.s.calls().XTrimMaxLen(ctxT(t), x.h.key+":wake", 0).Err(); err != nil {
			t.Fatal(err)
		}
		until(t, "time does not pass", func() bool { return x.now().Sub(begin) > 100*time.Millisecond })
		x.beat("one")
		if n := x.s.calls().XLen(ctxT(t), x.h.key+":wake").Val(); n == 0 {
			t.Errorf("%+v: nobody was woken", rq)
		}
	}
}

// TestUnreadGoesFirst: what is given back so that the next fetch takes it again
// does not wait behind settlements that one call cannot take.
func TestUnreadGoesFirst(t *testing.T) {
	c := &consumer{kick: make(chan struct{}, 1)}
	for i := range maxSettle + 10 {
		c.todo = append(c.todo, settlement{id: fmt.Sprint(i), count: 1, ack: true})
	}
	c.unread(&fetch{holds: []*hold{{id: "x", count: 1}, {id: "y", count: 2}}}, c.life)
	_, batch, acks := c.settlements()
	for _, id := range []string{"x", "y"} {
		if acks == len(batch) || !slices.ContainsFunc(batch, func(s settlement) bool { return s.id == id && s.delay == unseen && !s.ack }) {
			t.Errorf("%s is not in the next call", id)
		}
	}
	if len(c.todo) != 12 {
		t.Errorf("%d wait still", len(c.todo))
	}
}

// TestHalfAcknowledged: where a connection ends between the two commands of an
// acknowledgement the message is gone, and while it is between them a queue with
// another one is not empty.
func TestHalfAcknowledged(t *testing.T) {
	x := newScript(t, routing.Queue{})
	x.publish("a", "b")
	x.join("one")
	x.fetch("one", 1)
	if err := x.s.calls().XDel(ctxT(t), x.h.key, x.held("one")...).Err(); err != nil {
		t.Fatal(err)
	}
	if v := x.call(x.h.fns.delete, "0", "1"); v != int64(0) {
		t.Errorf("a queue with a message was deleted as an empty one: %v", v)
	}
	x.call(x.h.fns.leave, "one")
	x.join("two")
	x.expect("what is left", x.fetch("two", 10), "b:1")
	if n := x.ready(); n != 0 {
		t.Errorf("%d are ready", n)
	}
}
