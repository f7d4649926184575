package redis

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestBehindAnother: a batch that was sent behind one that is not stored is not stored
// before it, wherever that one got stuck.
func TestBehindAnother(t *testing.T) {
	x := newScript(t, routing.Queue{})
	send := func(record, number, body string, want int64) {
		t.Helper()
		if got := x.call(x.h.fns.append, record, number, window, "", "2", "body", body); got != want {
			t.Fatalf("batch %q: %v, want %d", number, got, want)
		}
	}
	send("b", "2 1 a", "second", -1)
	send("a", "1", "first", 1)
	send("b", "2 1 a", "second", 1)
	send("a", "3 2 b", "third", 1)
	send("b", "2 1 a", "second", 1) // a try that was held up on its way
	send("b", "4 5 a", "fourth", -1)
	send("b", "4", "fourth", 1) // which its sender knows to be the next
	if got := x.s.calls().XLen(ctxT(t), x.h.key).Val(); got != 4 {
		t.Errorf("%d messages, want 4", got)
	}
	x.s.calls().Unlink(ctxT(t), x.h.key)
	send("a", "5 6 b", "fifth", 0)
}

// TestLateBatch: a batch that comes when a later one is stored, after it was given up,
// does not pass for a new one.
func TestLateBatch(t *testing.T) {
	x := newScript(t, routing.Queue{})
	send := func(record, number, body string, want int64) {
		t.Helper()
		if got := x.call(x.h.fns.append, record, number, window, "", "2", "body", body); got != want {
			t.Fatalf("batch %q: %v, want %d", number, got, want)
		}
	}
	send("a", "2 0 b", "second", 1)
	send("b", "1 0 a", "first", -1)
	send("b", "3 2 a", "third", 1)
	send("a", "2 0 b", "second", 1)
	if got := x.s.calls().XLen(ctxT(t), x.h.key).Val(); got != 2 {
		t.Errorf("%d messages, want 2", got)
	}
}

// pour begins to publish numbered messages of some length.
func pour(t *testing.T, conn driver.Conn, n int) waiter {
	t.Helper()
	p, err := conn.Publisher(ctxT(t), driver.PublisherConfig{})
	if err != nil {
		t.Fatal(err)
	}
	w := waiter{make(chan *driver.Publishing, n)}
	for i := range n {
		m := text(numbered(i))
		m.Key = "q"
		p.Publish(ctxT(t), []*driver.Publishing{{Message: m, ID: newID(), Owner: w}}, false)
	}
	return w
}

// flood is pour; done waits for all to be stored.
func flood(t *testing.T, conn driver.Conn, n int) (done func()) {
	t.Helper()
	w := pour(t, conn, n)
	return func() {
		t.Helper()
		for range n {
			select {
			case p := <-w.c:
				if err := p.Err(); err != nil {
					t.Fatal(err)
				}
			case <-ctxT(t).Done():
				t.Fatal("messages without an outcome")
			}
		}
	}
}

func numbered(i int) string {
	return fmt.Sprint(i, " ") + string(bytes.Repeat([]byte{'x'}, 2000))
}

// underWay is how many batches are.
func underWay(s *store) (n int) {
	for _, l := range s.lanes {
		l.mu.Lock()
		for i := range l.flights {
			if l.flights[i].up {
				n++
			}
		}
		l.mu.Unlock()
	}
	return n
}

// TestTwoBatchesUnderWay: where much is published one batch does not wait for the
// answer to the one before.
func TestTwoBatchesUnderWay(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, s := dial(t, p.url)
	declare(t, conn, "q")
	flood(t, conn, 1)() // the connection is there
	p.hold(plainFunctions.append, 300*time.Millisecond)
	done := flood(t, conn, 500)
	until(t, "never two batches under way", func() bool { return underWay(s) == 2 })
	p.hold("", 0)
	done()
}

// TestLostAnswersOfTwoBatches: of messages on their way in two batches, whose answers
// are lost now and then, there is one copy each, in order.
func TestLostAnswersOfTwoBatches(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, p.url)
	declare(t, conn, "q")
	const n = 3000
	p.lose(plainFunctions.append, 2) // there are six batches or more
	done := flood(t, conn, n)
	done()
	if lost := p.lose("", 0); lost < 3 {
		t.Fatalf("only %d answers were lost", lost)
	}
	info(t, conn, "q", driver.QueueInfo{Ready: n})
	sub := subscribe(t, conn, "q", 100)
	for i := range n {
		settle(t, sub, driver.Ack, expect(t, sub, numbered(i))...)
	}
}

// TestSlowLink: a large message is not given up while it goes on being sent, however
// much longer it takes than an answer may.
func TestSlowLink(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, with(p.url, "timeout=500ms"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("first")); err != nil {
		t.Fatal(err)
	}
	p.hold("x", 40*time.Millisecond) // each MiB or less of it
	large := strings.Repeat("x", 24<<20)
	if err := publish(t, conn, "q", text(large)); err != nil {
		t.Fatal(err)
	}
	p.hold("", 0)
	sub := subscribe(t, conn, "q", 1)
	settle(t, sub, driver.Ack, expect(t, sub, "first")...)
	settle(t, sub, driver.Ack, expect(t, sub, large)...)
}
