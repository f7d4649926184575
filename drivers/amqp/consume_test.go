package amqp

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestAcksCoalesce acknowledges in several orders: the broker hears of each.
func TestAcksCoalesce(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	p := publisherOf(t, c, "")
	orders := map[string]func(n, i int) int{
		"forward":  func(n, i int) int { return i },
		"backward": func(n, i int) int { return n - 1 - i },
		"even":     func(n, i int) int { return i * 2 % n }, // every second one, then never the rest
	}
	for name, order := range orders {
		const n = 101
		var batch []*driver.Publishing
		for i := range n {
			batch = append(batch, publishing(driver.Message{ID: fmt.Sprint(i), Key: "q"}))
		}
		p.Publish(ctxOf(t), batch, true)
		for _, x := range batch {
			check(t, wait(t, x))
		}
		s := subscribe(t, c, "q", 40)
		settled := 0
		for settled < n {
			var ds []*driver.Delivery
			for len(ds) < min(20, n-settled) {
				ds = append(ds, receive(t, s))
			}
			done := map[int]bool{}
			for i := range ds {
				k := order(len(ds), i)
				if !done[k] {
					settle(t, s, ds[k], driver.Ack)
					done[k] = true
				}
			}
			for k, d := range ds {
				if !done[k] {
					settle(t, s, d, driver.Ack)
				}
			}
			settled += len(ds)
		}
		check(t, s.Close(ctxOf(t)))
		// What the broker still held would be ready again.
		sub := subscribe(t, c, "q", 10)
		check(t, publish(t, p, driver.Message{ID: "sentinel", Key: "q"}))
		if d := receive(t, sub); d.Message.ID != "sentinel" {
			t.Errorf("%s: %s came again", name, d.Message.ID)
		} else {
			settle(t, sub, d, driver.Ack)
		}
		check(t, sub.Close(ctxOf(t)))
	}
}

// TestAckWithinWindow holds the first of a few and acknowledges the others:
// the broker hears of them by the timer alone.
func TestAckWithinWindow(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	p := publisherOf(t, c, "")
	s := subscribe(t, c, "q", 100)
	var ds []*driver.Delivery
	for i := range 3 {
		check(t, publish(t, p, driver.Message{ID: fmt.Sprint(i), Key: "q"}))
		ds = append(ds, receive(t, s))
	}
	settle(t, s, ds[1], driver.Ack)
	settle(t, s, ds[2], driver.Ack)
	until(t, "they are sent", func() bool {
		sub := s.(*subscriber)
		sub.mu.Lock()
		defer sub.mu.Unlock()
		return sub.life.acks.pending == 0
	})
	check(t, s.Close(ctxOf(t)))
	again := subscribe(t, c, "q", 100)
	check(t, publish(t, p, driver.Message{ID: "sentinel", Key: "q"}))
	got := map[string]bool{receive(t, again).Message.ID: true, receive(t, again).Message.ID: true}
	if !got["0"] || !got["sentinel"] {
		t.Errorf("came again: %v, want 0 and the sentinel", got)
	}
}

// TestStalledBroker publishes into a connection through which nothing passes.
func TestStalledBroker(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	p := publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{ID: "before", Key: "q"}))
	s := subscribe(t, c, "q", 500)
	settle(t, s, receive(t, s), driver.Ack)
	link.Stall(true)
	var all []*driver.Publishing
	start := time.Now()
	for i := range 400 { // far more than TCP and the wire buffer
		x := publishing(driver.Message{ID: fmt.Sprint(i), Key: "q", Body: make([]byte, 64<<10)})
		all = append(all, x)
		p.Publish(ctxOf(t), []*driver.Publishing{x}, false)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("Publish blocked for %v", took)
	}
	c.out.mu.Lock()
	queued := len(c.out.queue)
	c.out.mu.Unlock()
	if queued == 0 {
		t.Error("nothing is held back: the wire's buffer is not bounded")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	for name, call := range map[string]func() error{
		"Declare": func() error { return c.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q"}}}) },
		"Receive": func() error { _, err := s.Receive(ctx, make([]*driver.Delivery, 1)); return err },
		"Health":  func() error { return c.Health(ctx) },
	} {
		if err := call(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s of a stalled broker: %v", name, err)
		}
	}
	all[399].Resolve(driver.ErrUnconfirmed) // its caller gives up
	link.Stall(false)
	for i, x := range all[:399] {
		if err := wait(t, x); err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	for i := range 399 {
		d := receive(t, s)
		if d.Message.ID != fmt.Sprint(i) {
			t.Fatalf("message %d is %s", i, d.Message.ID)
		}
		settle(t, s, d, driver.Ack)
	}
}

// TestCloseLeavesNothing closes a connection with all that hangs on it.
func TestCloseLeavesNothing(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	for range 3 {
		c := openURL(t, url)
		check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
		p := publisherOf(t, c, "")
		check(t, publish(t, p, driver.Message{Key: "q"}))
		s := subscribe(t, c, "q", 10)
		receive(t, s)
		check(t, c.Close(ctxOf(t)))
		check(t, c.Close(ctxOf(t)))
		if err := publish(t, p, driver.Message{Key: "q"}); !errors.Is(err, driver.ErrUnconfirmed) && !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Publish after Close: %v", err)
		}
		if _, err := s.Receive(ctxOf(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Receive after Close: %v", err)
		}
	}
	stacks := ""
	for range 3000 { // 30 s
		buf := make([]byte, 1<<20)
		stacks = string(buf[:runtime.Stack(buf, true)])
		if !strings.Contains(stacks, "drivers/amqp.(*") && !strings.Contains(stacks, "amqp091-go.(") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("goroutines are left:\n%s", stacks)
}

// TestCutUnderLoad cuts both connections again and again.
func TestCutUnderLoad(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL())
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	s := subscribe(t, c, "q", 50)
	p := publisherOf(t, c, "")
	confirmed, count, end := load(t, p, "q")
	seen := map[string]bool{}
	buf := make([]*driver.Delivery, 16)
	take := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		n, err := s.Receive(ctx, buf)
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		for _, d := range buf[:n] {
			seen[d.Message.ID] = true
			if err := s.Settle(ctxOf(t), d, driver.Ack, 0); err != nil && !errors.Is(err, driver.ErrLost) {
				t.Errorf("Ack: %v", err)
			}
		}
	}
	for range 5 {
		n := count.Load()
		until(t, "publishing goes on", func() bool { take(); return count.Load() > n+100 })
		link.Cut()
	}
	end()
	check(t, publish(t, p, driver.Message{ID: "last", Key: "q"}))
	for !seen["last"] {
		take()
	}
	for id := range confirmed {
		for !seen[id] {
			take()
		}
	}
}
