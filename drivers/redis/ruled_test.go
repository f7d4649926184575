package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func declareQueues(t testing.TB, conn driver.Conn, queues ...routing.Queue) {
	t.Helper()
	if err := conn.Declare(ctxT(t), routing.Topology{Queues: queues}); err != nil {
		t.Fatal(err)
	}
}

func level(body string, priority uint8) *driver.Message {
	return &driver.Message{Body: []byte(body), Priority: priority}
}

// soon is far more than a woken reader needs, and half of what one that is not takes to
// look again, with dialBlocking and the default lease.
const soon = 5 * time.Second

// within fails where f takes so long that nobody was woken.
func within(t testing.TB, what string, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > soon {
		t.Errorf("%s took %v", what, took)
	}
}

// TestRulesWake: who waits at a queue with rules is woken by each publish and by
// what others give back.
func TestRulesWake(t *testing.T) {
	url := testbroker.URL(t, "redis")
	conn, _ := dialBlocking(t, url)
	other, _ := dialBlocking(t, url)
	declareQueues(t, conn, routing.Queue{Name: "q", MaxPriority: 3})
	one, two := subscribe(t, conn, "q", 3), subscribe(t, other, "q", 3)
	both := make(chan *driver.Delivery, 10)
	ctx, cancel := context.WithCancel(ctxT(t))
	done := make(chan struct{}, 2)
	for _, sub := range []driver.Subscriber{one, two} {
		go func() {
			defer func() { done <- struct{}{} }()
			buf := make([]*driver.Delivery, 1)
			for {
				if _, err := sub.Receive(ctx, buf); err != nil {
					return
				}
				both <- buf[0]
				if buf[0].Attempt == 1 {
					_ = sub.Settle(ctx, buf[0], driver.Nack, 0)
				} else {
					_ = sub.Settle(ctx, buf[0], driver.Ack, 0)
				}
			}
		}()
	}
	for i := range 20 {
		within(t, "a message and its redelivery", func() {
			if err := publish(t, conn, "q", level(fmt.Sprint(i), uint8(i%4))); err != nil {
				t.Fatal(err)
			}
			for attempt := 1; attempt <= 2; attempt++ {
				d := <-both
				if string(d.Message.Body) != fmt.Sprint(i) || d.Attempt != attempt || d.Message.Priority != uint8(i%4) {
					t.Fatalf("got %+v", d)
				}
			}
		})
	}
	cancel()
	<-done
	<-done
	info(t, conn, "q", driver.QueueInfo{Consumers: 2})
}

func TestPriorityOrder(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declareQueues(t, conn, routing.Queue{Name: "q", MaxPriority: 9})
	var ms []*driver.Message
	for i := range 100 {
		ms = append(ms, level(fmt.Sprint(i), uint8(i%12)))
	}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	var want []string
	for level := 9; level >= 0; level-- {
		for i := range 100 {
			if min(i%12, 9) == level {
				want = append(want, fmt.Sprint(i))
			}
		}
	}
	// In parts, with some given back between, which are the first again.
	sub := subscribe(t, conn, "q", 10)
	for len(want) > 0 {
		n := min(len(want), 10)
		ds := expect(t, sub, want[:n]...)
		if n > 5 && ds[0].Attempt == 1 {
			settle(t, sub, driver.Nack, ds[:3]...)
			settle(t, sub, driver.Ack, ds[3:]...)
			want = append(append([]string{}, want[:3]...), want[n:]...)
			settle(t, sub, driver.Ack, expect(t, sub, want[:3]...)...)
			want = want[3:]
			continue
		}
		settle(t, sub, driver.Ack, ds...)
		want = want[n:]
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

func TestFullQueueRefuses(t *testing.T) {
	url := testbroker.URL(t, "redis")
	conn, _ := dial(t, url)
	other, _ := dial(t, url)
	declareQueues(t, conn, routing.Queue{Name: "q", MaxLength: 3, Overflow: routing.RejectPublish})
	errs := make(chan error, 40)
	for i := range 40 {
		c := []driver.Conn{conn, other}[i%2]
		go func() { errs <- publish(t, c, "q", text("x")) }()
	}
	stored := 0
	for range 40 {
		switch err := <-errs; {
		case err == nil:
			stored++
		case !errors.Is(err, driver.ErrRejected):
			t.Error(err)
		}
	}
	if stored != 3 {
		t.Fatalf("%d were stored", stored)
	}
	sub := subscribe(t, other, "q", 1)
	d := receive(t, sub)
	if err := publish(t, conn, "q", text("y")); err != nil {
		t.Fatal(err)
	}
	settle(t, sub, driver.Ack, d)
	for _, want := range []string{"x", "x", "y"} {
		settle(t, sub, driver.Ack, expect(t, sub, want)...)
	}
}

// TestRulesOverRestart: rules, counts and turns outlive the server.
func TestRulesOverRestart(t *testing.T) {
	b := testbroker.Start(t, "redis")
	safe(t, b)
	conn, _ := dial(t, b.URL())
	declareQueues(t, conn, routing.Queue{Name: "q", MaxPriority: 2, MaxBytes: 4, SingleActiveConsumer: true, Overflow: routing.RejectPublish})
	if err := publish(t, conn, "q", level("aa", 1), level("bb", 2)); err != nil {
		t.Fatal(err)
	}
	one := subscribe(t, conn, "q", 1)
	expect(t, one, "bb")
	two := subscribe(t, conn, "q", 1)
	b.Restart()
	if err := publish(t, conn, "q", level("cc", 2)); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, conn, "q", level("d", 2)); !errors.Is(err, driver.ErrRejected) {
		t.Fatalf("beyond the limit: %v", err)
	}
	if err := one.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bb", "cc", "aa"} {
		settle(t, two, driver.Ack, expect(t, two, want)...)
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestRulesAmidLostAnswers: nothing is lost or doubled, and the limit holds.
func TestRulesAmidLostAnswers(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, p.url)
	declareQueues(t, conn, routing.Queue{Name: "q", MaxPriority: 1, MaxBytes: 1000, Overflow: routing.RejectPublish})
	for _, word := range []string{rulesFunctions.append, rulesFunctions.fetch, rulesFunctions.settle, "XREADGROUP"} {
		sub := subscribe(t, conn, "q", 5)
		p.lose(word, 3)
		for i := range 20 {
			if err := publish(t, conn, "q", level(fmt.Sprint(i), 1)); err != nil {
				t.Fatal(err)
			}
			d := receive(t, sub)
			if got := string(d.Message.Body); got != fmt.Sprint(i) || d.Attempt != 1 {
				t.Fatalf("%s: got %q, attempt %d", word, got, d.Attempt)
			}
			settle(t, sub, driver.Ack, d)
		}
		p.lose("", 0)
		info(t, conn, "q", driver.QueueInfo{Consumers: 1})
		if err := sub.Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
	}
	var ms []*driver.Message
	for range 10 {
		ms = append(ms, &driver.Message{Body: make([]byte, 100)})
	}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, conn, "q", text("x")); !errors.Is(err, driver.ErrRejected) {
		t.Fatalf("beyond the limit: %v", err)
	}
}

// TestRulesDelayedNack: one given back with a delay comes when that is over, in
// its place.
func TestRulesDelayedNack(t *testing.T) {
	conn, _ := dialBlocking(t, testbroker.URL(t, "redis"))
	declareQueues(t, conn, routing.Queue{Name: "q", MaxPriority: 2, MaxLength: 10})
	if err := publish(t, conn, "q", level("a", 2), level("b", 1), level("c", 1)); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	ds := expect(t, sub, "a", "b", "c")
	// What is delayed counts as ready, which is looked at while it surely is.
	if err := sub.Settle(ctxT(t), ds[1], driver.Nack, time.Hour); err != nil {
		t.Fatal(err)
	}
	settle(t, sub, driver.Ack, ds[2])
	info(t, conn, "q", driver.QueueInfo{Ready: 1, Unsettled: 1, Consumers: 1})
	const delay = 100 * time.Millisecond
	begin := time.Now()
	if err := sub.Settle(ctxT(t), ds[0], driver.Nack, delay); err != nil {
		t.Fatal(err)
	}
	within(t, "the delay", func() {
		d := receive(t, sub)
		// The server counts whole milliseconds.
		if took := time.Since(begin); took < delay-time.Millisecond || d.Attempt != 2 || d.Message.Priority != 2 {
			t.Fatalf("came after %v: %+v", took, d)
		}
	})
}

func TestRulesDeletedQueue(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declareQueues(t, conn, routing.Queue{Name: "q", MaxLength: 10, MaxPriority: 3, SingleActiveConsumer: true})
	active, standby := subscribe(t, conn, "q", 10), subscribe(t, conn, "q", 10)
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	expect(t, active, "a")
	if err := conn.DeleteQueue(ctxT(t), "q", driver.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, sub := range []driver.Subscriber{active, standby} {
		if _, err := sub.Receive(ctxT(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
			t.Fatalf("Receive: %v", err)
		}
		if err := sub.Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := s.calls().Keys(ctxT(t), s.cfg.prefix+":*").Result()
	if err != nil || len(keys) > 0 {
		t.Fatalf("left over: %v, %v", keys, err)
	}
}
