package amqp

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestDueHoldsUpNobody: far more messages than a mover holds are due for a full
// queue; one for another queue comes through at once, and they when there is
// room.
func TestDueHoldsUpNobody(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}, {Name: "free"}}}))
	p := publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{ID: "first", Key: "full"}))
	const n = 3 * moverPrefetch
	var xs []*driver.Publishing
	for i := range n {
		xs = append(xs, publishing(driver.Message{ID: fmt.Sprint(i), Key: "full", Delay: 100 * time.Millisecond}))
	}
	p.Publish(ctxOf(t), xs, true)
	for _, x := range xs {
		check(t, wait(t, x))
	}
	check(t, publish(t, p, driver.Message{ID: "behind", Key: "free", Delay: 300 * time.Millisecond}))
	start := time.Now()
	if d := receive(t, subscribe(t, c, "free", 1)); d.Message.ID != "behind" {
		t.Errorf("got %+v", d)
	}
	t.Logf("the one behind came after %v", time.Since(start))
	if took := time.Since(start); took > 8*time.Second {
		t.Errorf("it was held up for %v", took)
	}
	s := subscribe(t, c, "full", 100)
	seen := map[string]bool{}
	for len(seen) < 20 { // one at a time fits, at each try of all
		d := receive(t, s)
		seen[d.Message.ID] = true
		settle(t, s, d, driver.Ack)
	}
}

// TestDelaySurvivesRestart: the broker is restarted while a message waits.
func TestDelaySurvivesRestart(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: starts a broker")
	}
	b := testbroker.Start(t, "amqp")
	c := openURL(t, b.URL())
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	p := publisherOf(t, c, "")
	start := time.Now()
	const short, long = time.Second, 12 * time.Second
	check(t, publish(t, p, driver.Message{ID: "short", Key: "q", Delay: short}))
	check(t, publish(t, p, driver.Message{ID: "long", Key: "q", Delay: long}))
	b.Restart()
	t.Logf("restarted after %v", time.Since(start))
	s := subscribe(t, c, "q", 10)
	for _, want := range []string{"short", "long"} {
		buf := make([]*driver.Delivery, 1)
		ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
		_, err := s.Receive(ctx, buf)
		cancel()
		check(t, err)
		if buf[0].Message.ID != want {
			t.Errorf("got %+v, want %s", buf[0], want)
		}
		t.Logf("%s after %v", want, time.Since(start))
		settle(t, s, buf[0], driver.Ack)
	}
	if took := time.Since(start); took < long {
		t.Errorf("the long one came after %v", took)
	}
}

// TestMoverDies cuts connections for good while they move messages: nothing is
// lost, at whatever step each was.
func TestMoverDies(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	last := openURL(t, url)
	check(t, last.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	var links []*testbroker.Link
	for range 5 {
		link := testbroker.Proxy(t, url)
		c := openURL(t, link.URL())
		check(t, c.ensureLevels(ctxOf(t), 8))
		check(t, c.ensureDue(ctxOf(t)))
		links = append(links, link)
	}
	s := subscribe(t, last, "q", 100)
	p := publisherOf(t, last, "")
	const n = 1500
	var xs []*driver.Publishing
	for i := range n {
		xs = append(xs, publishing(driver.Message{ID: fmt.Sprint(i), Key: "q", Delay: 80 * time.Millisecond}))
	}
	p.Publish(ctxOf(t), xs, true)
	seen, copies := map[string]bool{}, 0
	buf := make([]*driver.Delivery, 100)
	for len(seen) < n {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		k, err := s.Receive(ctx, buf)
		cancel()
		if err != nil {
			t.Fatalf("%d of %d have come: %v", len(seen), n, err)
		}
		for _, d := range buf[:k] {
			seen[d.Message.ID] = true
			copies++
			settle(t, s, d, driver.Ack)
		}
		if len(links) > 0 && len(seen) > (6-len(links))*n/8 {
			links[0].Refuse(true)
			links[0].Cut()
			links = links[1:]
		}
	}
	for _, x := range xs {
		check(t, wait(t, x))
	}
	t.Logf("%d messages came as %d copies; %d of 5 connections were left", n, copies, len(links))
	if len(links) == 5 {
		t.Error("no connection was cut")
	}
	for _, link := range links {
		link.Cut()
	}
}

// TestMoverTakesOver: what is due is moved by a connection that never delayed
// anything itself, once all others have gone.
func TestMoverTakesOver(t *testing.T) {
	t.Parallel()
	url := testbroker.URL(t, "amqp")
	a := openURL(t, url)
	check(t, a.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	check(t, publish(t, publisherOf(t, a, ""), driver.Message{Key: "q", ID: "m", Delay: time.Second}))
	b := openURL(t, url)
	check(t, a.Close(ctxOf(t)))
	d := receive(t, subscribe(t, b, "q", 1))
	if d.Message.ID != "m" {
		t.Errorf("got %+v", d)
	}
}

// TestForeignDue: what somebody else put into the movers' queue is kept where it
// can be looked at, and holds up nothing.
func TestForeignDue(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), plainQ))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q", ID: "m", Delay: 10 * time.Millisecond}))
	s := subscribe(t, c, "q", 1)
	settle(t, s, receive(t, s), driver.Ack)
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: dueQueue, ID: "foreign", Header: driver.Header{"polymq-due": true}}))
	g := subscribe(t, c, goneName, 1)
	if d := receive(t, g); d.Message.ID != "foreign" {
		t.Errorf("got %+v", d)
	}
}

// TestMoverAfterClose: what the end of the Conn has left open takes no further
// step, which would warn of a failure or publish in vain.
func TestMoverAfterClose(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 100 { // the mover hears of both at once
		x := &moving{p: publishing(driver.Message{}), step: func(*moving, error) { t.Error("it goes on") }}
		m := &mover{c: &Conn{ctx: ctx}, wake: make(chan struct{}, 1), turn: []*moving{x}}
		signal(m.wake)
		m.finish()
	}
}
