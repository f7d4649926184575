package redis

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestOverflowUnaccounted: amid publishers, consumers that give back, and one that
// dies, each message is settled or dead-lettered, once.
func TestOverflowUnaccounted(t *testing.T) {
	url := testbroker.URL(t, "redis")
	conn, _ := dial(t, url)
	other, _ := dial(t, url)
	const publishers, each, early, most = 4, 300, 200, 40
	declareQueues(t, conn, routing.Queue{Name: "dead"}, routing.Queue{
		Name: "q", MaxPriority: 3, MaxLength: most, MaxBytes: 400, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead",
	})
	var first []*driver.Message // which overflow for certain: nobody consumes yet
	for i := range early {
		first = append(first, level(fmt.Sprintf("early %d", i), uint8(i%10)))
	}
	if err := publish(t, conn, "q", first...); err != nil {
		t.Fatal(err)
	}
	info(t, conn, "dead", driver.QueueInfo{Ready: early - most})
	// It alone may lose its lease, for what others lost they would count twice; and it
	// comes when another already moves dead letters.
	link := testbroker.Proxy(t, url)
	dying, _ := dial(t, with(link.URL(), "lease=1s&timeout=1s"))
	var mu sync.Mutex
	seen, from := map[string]int{}, map[string]int{}
	ctx, cancel := context.WithCancel(ctxT(t))
	var consumers, producers sync.WaitGroup
	consume := func(sub driver.Subscriber, back int) {
		consumers.Go(func() {
			buf := make([]*driver.Delivery, 5)
			for n := 0; ; {
				k, err := sub.Receive(ctx, buf)
				if err != nil {
					return
				}
				for _, d := range buf[:k] {
					if n++; back > 0 && n%back == 0 {
						_ = sub.Settle(ctxT(t), d, driver.Nack, time.Duration(n%2)*time.Millisecond)
						continue
					}
					mu.Lock()
					seen[string(d.Message.Body)]++
					from[d.Queue]++
					mu.Unlock()
					_ = sub.Settle(ctxT(t), d, driver.Ack, 0)
				}
			}
		})
	}
	lame := subscribe(t, dying, "q", 5) // it takes some, and settles none
	consume(subscribe(t, conn, "q", 10), 3)
	consume(subscribe(t, other, "q", 1), 5)
	consume(subscribe(t, other, "dead", 20), 0)
	for p := range publishers {
		producers.Go(func() {
			c := []driver.Conn{conn, other}[p%2]
			for i := 0; i < each; i += 10 {
				var ms []*driver.Message
				for j := range 10 {
					ms = append(ms, level(fmt.Sprintf("%d %d", p, i+j), uint8(j)))
				}
				if err := publish(t, c, "q", ms...); err != nil {
					t.Error(err)
				}
			}
		})
	}
	receive(t, lame)
	link.Refuse(true)
	link.Cut()
	producers.Wait()
	until(t, "not all have arrived", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == publishers*each+early
	})
	info(t, conn, "q", driver.QueueInfo{Consumers: 2})
	info(t, conn, "dead", driver.QueueInfo{Consumers: 1})
	cancel()
	consumers.Wait()
	link.Refuse(false)
	if from["q"] == 0 || from["dead"] == 0 {
		t.Errorf("from where they came: %v", from)
	}
	for body, n := range seen {
		if n != 1 {
			t.Errorf("%q came %d times", body, n)
		}
	}
}

// TestStored: when a message was stored is told by the server's clock, the same
// for each of its deliveries.
func TestStored(t *testing.T) {
	for _, rq := range []routing.Queue{{Name: "q"}, {Name: "q", MaxPriority: 2}} {
		conn, s := dial(t, testbroker.URL(t, "redis"))
		declareQueues(t, conn, rq)
		server := &script{t: t, s: s}
		before := server.now().Truncate(time.Millisecond) // what a message has is in whole ones
		if err := publish(t, conn, "q", text("a")); err != nil {
			t.Fatal(err)
		}
		after := server.now()
		sub := subscribe(t, conn, "q", 1)
		d := receive(t, sub)
		stored := d.Tag.(*emulate.Delivery).Stored
		if stored.Before(before) || stored.After(after) {
			t.Errorf("stored at %v, published from %v to %v", stored, before, after)
		}
		settle(t, sub, driver.Nack, d)
		if again := receive(t, sub).Tag.(*emulate.Delivery).Stored; !again.Equal(stored) {
			t.Errorf("stored at %v, and again at %v", stored, again)
		}
	}
}
