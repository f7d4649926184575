package redis

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestPublishConsume(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	var ms []*driver.Message
	var want []string
	for i := range 1000 {
		want = append(want, fmt.Sprint(i))
		ms = append(ms, text(want[i]))
	}
	ms[0].Header = map[string]any{"s": "x", "n": int64(5), "b": []byte{0, 1}, "nil": nil, "f": 0.5}
	if err := publish(t, conn, "q", ms...); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 100)
	for i := range want {
		d := receive(t, sub)
		if string(d.Message.Body) != want[i] || d.Attempt != 1 || d.Redelivered || d.Queue != "q" {
			t.Fatalf("message %d: got %+v", i, d)
		}
		if i == 0 && (len(d.Message.Header) != 5 || d.Message.Header["n"] != int64(5)) {
			t.Fatalf("headers: %v", d.Message.Header)
		}
		settle(t, sub, driver.Ack, d)
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	if err := publish(t, conn, "q", text("later")); err != nil {
		t.Fatal(err)
	}
	expect(t, sub, "later")
	if err := sub.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	info(t, conn, "q", driver.QueueInfo{Ready: 1})
}

func TestGivenBackInOrder(t *testing.T) {
	conn, _ := dialBlocking(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b"), text("c"), text("d"), text("e")); err != nil {
		t.Fatal(err)
	}
	one := subscribe(t, conn, "q", 4)
	ds := expect(t, one, "a", "b", "c")
	settle(t, one, driver.Nack, ds[1])
	d := receive(t, one) // d was prefetched
	if got := string(d.Message.Body); got != "d" {
		t.Fatalf("got %q", got)
	}
	again := receive(t, one)
	if string(again.Message.Body) != "b" || again.Attempt != 2 || !again.Redelivered {
		t.Fatalf("got %+v", again)
	}
	settle(t, one, driver.Ack, d)
	e := expect(t, one, "e")
	_ = e
	two := subscribe(t, conn, "q", 10)
	within(t, "the way to another subscriber", func() {
		if err := one.Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
		for _, want := range []struct {
			body    string
			attempt int
		}{{"a", 2}, {"b", 3}, {"c", 2}, {"e", 2}} {
			d := receive(t, two)
			if string(d.Message.Body) != want.body || d.Attempt != want.attempt {
				t.Fatalf("got %q attempt %d, want %v", d.Message.Body, d.Attempt, want)
			}
		}
	})
	info(t, conn, "q", driver.QueueInfo{Unsettled: 4, Consumers: 1})
}

func TestPrefetchedIsNotCounted(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b"), text("c")); err != nil {
		t.Fatal(err)
	}
	for i := 1; i < 4; i++ {
		sub := subscribe(t, conn, "q", 10)
		d := receive(t, sub)
		if string(d.Message.Body) != "a" || d.Attempt != i {
			t.Fatalf("got %q, attempt %d, want a, %d", d.Message.Body, d.Attempt, i)
		}
		info(t, conn, "q", driver.QueueInfo{Unsettled: 3, Consumers: 1})
		if err := sub.Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
		info(t, conn, "q", driver.QueueInfo{Ready: 3})
	}
	sub := subscribe(t, conn, "q", 10)
	expect(t, sub, "a")
	for _, body := range []string{"b", "c"} {
		if d := receive(t, sub); string(d.Message.Body) != body || d.Attempt != 1 {
			t.Fatalf("got %q, attempt %d", d.Message.Body, d.Attempt)
		}
	}
}

func TestDelayedNack(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b"), text("c")); err != nil {
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
	begin := time.Now()
	const delay = 300 * time.Millisecond
	if err := sub.Settle(ctxT(t), ds[0], driver.Nack, delay); err != nil {
		t.Fatal(err)
	}
	d := receive(t, sub)
	// The server counts whole milliseconds.
	if took := time.Since(begin); took < delay-time.Millisecond || d.Attempt != 2 {
		t.Fatalf("came after %v, attempt %d", took, d.Attempt)
	}
}

func TestPurge(t *testing.T) {
	for _, held := range []int{0, 2} {
		conn, _ := dial(t, testbroker.URL(t, "redis"))
		declare(t, conn, "q")
		if err := publish(t, conn, "q", text("a"), text("b"), text("c"), text("d"), text("e"), text("f")); err != nil {
			t.Fatal(err)
		}
		sub := subscribe(t, conn, "q", 4)
		ds := expect(t, sub, "a", "b", "c", "d")
		ctx := ctxT(t)
		if err := sub.Settle(ctx, ds[3], driver.Nack, time.Hour); err != nil {
			t.Fatal(err)
		}
		settle(t, sub, driver.Ack, ds[2])
		if held == 0 {
			settle(t, sub, driver.Ack, ds[:2]...)
		}
		expect(t, sub, "e", "f")
		_ = sub.Close(ctx)
		info(t, conn, "q", driver.QueueInfo{Ready: 3 + held})
		two := subscribe(t, conn, "q", max(held, 1))
		if held > 0 {
			expect(t, two, "a", "b")
		} else {
			settle(t, two, driver.Ack, expect(t, two, "e")...)
			_ = two.Close(ctx)
		}
		want := map[int]int{0: 2, 2: 3}[held]
		if n, err := conn.Purge(ctx, "q"); n != want || err != nil {
			t.Fatalf("held %d: purged %d, %v, want %d", held, n, err, want)
		}
		if held > 0 {
			info(t, conn, "q", driver.QueueInfo{Unsettled: 2, Consumers: 1})
		} else {
			info(t, conn, "q", driver.QueueInfo{})
		}
	}
}

func TestDeletedQueue(t *testing.T) {
	conn, s := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 10)
	if err := conn.DeleteQueue(ctxT(t), "q", driver.DeleteOptions{IfUnused: true}); !errors.Is(err, driver.ErrInUse) {
		t.Fatalf("IfUnused: %v", err)
	}
	begin := time.Now()
	if err := conn.DeleteQueue(ctxT(t), "q", driver.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := sub.Receive(ctxT(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
		t.Fatalf("Receive: %v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("heard of it only after %v", took)
	}
	if err := publish(t, conn, "q", text("x")); !errors.Is(err, driver.ErrUnroutable) {
		t.Fatalf("Publish: %v", err)
	}
	if err := sub.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	if keys, err := s.calls().Keys(ctxT(t), s.cfg.prefix+":*").Result(); err != nil || len(keys) > 1 {
		t.Fatalf("left over: %v, %v", keys, err)
	}
}

func TestForeignEntries(t *testing.T) {
	url := testbroker.URL(t, "redis")
	conn, s := dial(t, url)
	declare(t, conn, "q")
	c := raw(t, url)
	ctx := ctxT(t)
	streams, err := c.Keys(ctx, s.cfg.prefix+":*}").Result()
	if err != nil || len(streams) != 1 {
		t.Fatal(streams, err)
	}
	for _, values := range [][]string{
		{"body", "mine", "t.n", "int:no number", "priority", "900", "unknown", "x", "key", "k"},
		{"field", "without a body"},
		{"t.list", "list:{", "h.", "empty name"},
	} {
		if err := c.Do(ctx, append([]any{"XADD", streams[0], "*"}, anys(values)...)...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := publish(t, conn, "q", text("ours")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	d := receive(t, sub)
	if string(d.Message.Body) != "mine" || d.Message.Key != "k" || len(d.Message.Header) != 0 {
		t.Fatalf("got %+v", d)
	}
	settle(t, sub, driver.Ack, d)
	settle(t, sub, driver.Ack, expect(t, sub, "", "", "ours")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

func anys(ss []string) []any {
	out := make([]any, len(ss))
	for i := range ss {
		out[i] = ss[i]
	}
	return out
}

func TestDedup(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	for range 3 {
		if err := publish(t, conn, "q", &driver.Message{ID: "same", Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	info(t, conn, "q", driver.QueueInfo{Ready: 1})
}

// TestCloseIsPrompt: a read that nobody interrupted would block for longer than Close
// may take.
func TestCloseIsPrompt(t *testing.T) {
	conn, _ := dialBlocking(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 10)
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	settle(t, sub, driver.Ack, expect(t, sub, "a")...)
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	begin := time.Now()
	if err := sub.Close(ctx); err != nil {
		t.Fatal(err, time.Since(begin))
	}
}

// TestDrain: what was handed out stays held, the rest goes back at once and is
// not counted.
func TestDrain(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b"), text("c")); err != nil {
		t.Fatal(err)
	}
	one := subscribe(t, conn, "q", 3)
	held := expect(t, one, "a")
	info(t, conn, "q", driver.QueueInfo{Unsettled: 3, Consumers: 1})
	if err := one.(driver.Drainer).Drain(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	info(t, conn, "q", driver.QueueInfo{Ready: 2, Unsettled: 1, Consumers: 1})
	two := subscribe(t, conn, "q", 3)
	for _, d := range expect(t, two, "b", "c") {
		if d.Attempt != 1 {
			t.Errorf("%s: attempt %d", d.Message.Body, d.Attempt)
		}
	}
	settle(t, one, driver.Ack, held...)
	if err := one.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	info(t, conn, "q", driver.QueueInfo{Unsettled: 2, Consumers: 1})
}

// TestDeletedHere: who deletes a queue ends the holds of its own subscribers at
// once, also of those that have no room and so do not look.
func TestDeletedHere(t *testing.T) {
	conn, _ := dial(t, testbroker.URL(t, "redis"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 1)
	held := expect(t, sub, "a")
	if err := conn.DeleteQueue(ctxT(t), "q", driver.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := sub.Settle(ctxT(t), held[0], driver.Ack, 0); !errors.Is(err, driver.ErrLost) {
		t.Errorf("Settle: %v", err)
	}
	if _, err := sub.Receive(ctxT(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Receive: %v", err)
	}
}
