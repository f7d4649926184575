package redis

import (
	"testing"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestActiveConsumer: one gets all, in order of coming; the next when it ends, at
// once.
func TestActiveConsumer(t *testing.T) {
	url := testbroker.URL(t, "redis")
	var conns []driver.Conn
	for range 3 {
		conn, _ := dialBlocking(t, url)
		conns = append(conns, conn)
	}
	declareQueues(t, conns[0], routing.Queue{Name: "q", SingleActiveConsumer: true})
	var subs []driver.Subscriber
	for _, conn := range conns {
		subs = append(subs, subscribe(t, conn, "q", 2))
	}
	send := func(bodies ...string) {
		t.Helper()
		for _, b := range bodies {
			if err := publish(t, conns[2], "q", text(b)); err != nil {
				t.Fatal(err)
			}
		}
	}
	within(t, "the first consumer", func() {
		send("a", "b", "c")
		expect(t, subs[0], "a", "b")
	})
	info(t, conns[0], "q", driver.QueueInfo{Ready: 1, Unsettled: 2, Consumers: 3})
	within(t, "the hand-over by Close", func() {
		if err := subs[0].Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
		expect(t, subs[1], "a", "b")
	})
	// One that drains keeps what it has.
	within(t, "the hand-over by Drain", func() {
		if err := subs[1].(driver.Drainer).Drain(ctxT(t)); err != nil {
			t.Fatal(err)
		}
		settle(t, subs[2], driver.Ack, expect(t, subs[2], "c")...)
	})
	info(t, conns[0], "q", driver.QueueInfo{Unsettled: 2, Consumers: 2})
	send("d")
	settle(t, subs[2], driver.Ack, expect(t, subs[2], "d")...)
	if err := subs[1].Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	ds := expect(t, subs[2], "a", "b")
	if ds[0].Attempt != 3 {
		t.Errorf("attempt %d", ds[0].Attempt)
	}
	settle(t, subs[2], driver.Ack, ds...)
	info(t, conns[0], "q", driver.QueueInfo{Consumers: 1})
}

// TestActiveConsumerDies: the next has its turn when the lease has run out, and
// the dead one, come back, is the last.
func TestActiveConsumerDies(t *testing.T) {
	url := testbroker.URL(t, "redis")
	link := testbroker.Proxy(t, url)
	one, _ := dial(t, with(link.URL(), "lease=4s&timeout=1s"))
	two, _ := dial(t, url) // which keeps its turn, however busy the machine is
	declareQueues(t, two, routing.Queue{Name: "q", SingleActiveConsumer: true, MaxLength: 10})
	lame := subscribe(t, one, "q", 1)
	sub := subscribe(t, two, "q", 1)
	if err := publish(t, two, "q", text("a"), text("b")); err != nil {
		t.Fatal(err)
	}
	expect(t, lame, "a")
	link.Refuse(true)
	link.Cut()
	d := expect(t, sub, "a")
	if d[0].Attempt != 2 {
		t.Fatalf("taken over as attempt %d", d[0].Attempt)
	}
	link.Refuse(false)
	settle(t, sub, driver.Ack, d...)
	settle(t, sub, driver.Ack, expect(t, sub, "b")...)
	info(t, two, "q", driver.QueueInfo{Consumers: 2})
	for _, b := range []string{"c", "d", "e"} {
		if err := publish(t, two, "q", text(b)); err != nil {
			t.Fatal(err)
		}
		settle(t, sub, driver.Ack, expect(t, sub, b)...)
	}
	if err := sub.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, two, "q", text("f")); err != nil {
		t.Fatal(err)
	}
	expect(t, lame, "f")
}
