package redis

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestLostAnswersLeaveOneCopyInOrder(t *testing.T) {
	url := testbroker.URL(t, "redis")
	p := newLossy(t, url)
	conn, _ := dial(t, p.url)
	declare(t, conn, "q")
	p.lose(plainFunctions.append, 3)
	const n = 200
	for i := range n {
		if err := publish(t, conn, "q", text(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	if lost := p.lose("", 0); lost < n/5 {
		t.Fatalf("only %d answers were lost", lost)
	}
	info(t, conn, "q", driver.QueueInfo{Ready: n})
	sub := subscribe(t, conn, "q", 100)
	for i := range n {
		settle(t, sub, driver.Ack, expect(t, sub, fmt.Sprint(i))...)
	}
}

func TestLostFetchIsNotCounted(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, p.url)
	declare(t, conn, "q")
	for _, word := range []string{plainFunctions.tend, "XREADGROUP"} {
		sub := subscribe(t, conn, "q", 10)
		if err := publish(t, conn, "q", text("held")); err != nil {
			t.Fatal(err)
		}
		held := expect(t, sub, "held")
		p.lose(word, 2)
		for i := range 20 {
			if err := publish(t, conn, "q", text(fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			d := receive(t, sub)
			if got := string(d.Message.Body); got != fmt.Sprint(i) || d.Attempt != 1 {
				t.Fatalf("%s: got %q, attempt %d", word, got, d.Attempt)
			}
			settle(t, sub, driver.Ack, d)
		}
		p.lose("", 0)
		info(t, conn, "q", driver.QueueInfo{Unsettled: 1, Consumers: 1})
		settle(t, sub, driver.Ack, held...)
		info(t, conn, "q", driver.QueueInfo{Consumers: 1})
		if err := sub.Close(ctxT(t)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLostSettlementsHappenOnce(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, _ := dial(t, p.url)
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	for i := 1; i <= 20; i++ {
		p.lose(plainFunctions.settle, 2)
		d := receive(t, sub)
		if d.Attempt != i {
			t.Fatalf("attempt %d, want %d", d.Attempt, i)
		}
		settle(t, sub, driver.Nack, d)
	}
	p.lose("", 0)
	settle(t, sub, driver.Ack, receive(t, sub))
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// cut ends the reader's connection.
func (c *consumer) cut() {
	c.socketMu.Lock()
	defer c.socketMu.Unlock()
	c.socket.interrupt()
}

// TestCloseWithoutAnswer: a reader that is to end does not wait behind who asks under
// which name the server knows it.
func TestCloseWithoutAnswer(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, s := dial(t, p.url)
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	held := expect(t, sub, "a")
	c := onlyConsumer(t, s)
	p.lose(plainFunctions.rename, 1)
	c.cut()
	p.loses(t, 1)
	settle(t, sub, driver.Nack, held...)
	p.loses(t, 4)
	if err := c.halt(ctxT(t)); err != nil {
		t.Errorf("the reader has not ended: %v", err)
	}
	p.lose("", 0)
	if err := sub.Close(ctxT(t)); err != nil {
		t.Error(err)
	}
	info(t, conn, "q", driver.QueueInfo{Ready: 1})
}

// TestRenameWithoutAnswer: what is held outlives the loss of the answer to the change of
// the name, whatever is settled before the next try.
func TestRenameWithoutAnswer(t *testing.T) {
	p := newLossy(t, testbroker.URL(t, "redis"))
	conn, s := dial(t, p.url)
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	ds := expect(t, sub, "a", "b")
	c := onlyConsumer(t, s)
	p.lose(plainFunctions.rename, 1)
	c.cut()
	p.loses(t, 1)
	settle(t, sub, driver.Nack, ds[1])
	p.loses(t, 4)
	p.lose("", 0)
	settle(t, sub, driver.Ack, ds[0])
	settle(t, sub, driver.Ack, expect(t, sub, "b")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestLease: a subscriber whose network is gone loses its holds to another
// within the lease, counted, and can then neither settle them nor what the
// other holds.
func TestLease(t *testing.T) {
	url := testbroker.URL(t, "redis")
	link := testbroker.Proxy(t, url)
	one, _ := dial(t, with(link.URL(), "lease=4s&timeout=1s"))
	two, _ := dial(t, url) // which keeps what it takes over, however busy the machine is
	declare(t, two, "q")
	if err := publish(t, two, "q", text("a"), text("b")); err != nil {
		t.Fatal(err)
	}
	lame := subscribe(t, one, "q", 10)
	held := expect(t, lame, "a", "b")
	sub := subscribe(t, two, "q", 10)
	link.Refuse(true)
	link.Cut()
	taken := expect(t, sub, "a", "b")
	if taken[0].Attempt != 2 {
		t.Fatalf("taken over as attempt %d", taken[0].Attempt)
	}
	link.Refuse(false)
	// Either is known to be lost at once, or the late settlement is refused.
	for i, o := range []driver.Outcome{driver.Ack, driver.Nack} {
		if err := lame.Settle(ctxT(t), held[i], o, 0); err != nil && !errors.Is(err, driver.ErrLost) {
			t.Fatal(err)
		}
	}
	if err := publish(t, two, "q", text("c")); err != nil {
		t.Fatal(err)
	}
	// Whoever of the two gets it: the lame one is back in the group.
	buf := make([]*driver.Delivery, 1)
	got := make(chan driver.Subscriber, 2)
	ctx, cancel := context.WithCancel(ctxT(t))
	var wg sync.WaitGroup
	for _, s := range []driver.Subscriber{sub, lame} {
		b := [][]*driver.Delivery{buf, make([]*driver.Delivery, 1)}[boolInt(s == lame)]
		wg.Go(func() {
			if _, err := s.Receive(ctx, b); err == nil {
				got <- s
			}
		})
	}
	<-got
	cancel()
	wg.Wait()
	info(t, two, "q", driver.QueueInfo{Unsettled: 3, Consumers: 2})
	settle(t, sub, driver.Ack, taken...)
	info(t, two, "q", driver.QueueInfo{Unsettled: 1, Consumers: 2})
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestOutageBeyondLease: what a subscriber could not extend comes again, also
// when there is nobody else to take it.
func TestOutageBeyondLease(t *testing.T) {
	inRounds(t, outageBeyondLease)
}

func outageBeyondLease(t *testing.T) bool {
	url := testbroker.URL(t, "redis") + "&lease=1s&timeout=1s"
	link := testbroker.Proxy(t, url)
	conn, _ := dial(t, link.URL())
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), text("b")); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 2)
	held := expect(t, sub, "a")
	for i := 2; i < 4; i++ {
		link.Refuse(true)
		link.Cut()
		time.Sleep(time.Duration(i) * 600 * time.Millisecond) // longer than the lease
		link.Refuse(false)
		again := expect(t, sub, "a")
		if again[0].Attempt != i {
			t.Logf("attempt %d, want %d", again[0].Attempt, i)
			return false
		}
		if err := sub.Settle(ctxT(t), held[0], driver.Ack, 0); !errors.Is(err, driver.ErrLost) {
			t.Fatalf("the lost hold: %v", err)
		}
		held = again
	}
	settle(t, sub, driver.Ack, held...)
	settle(t, sub, driver.Ack, expect(t, sub, "b")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	return true
}

// TestHeldIsHeld: a handler far longer than the lease keeps its message.
func TestHeldIsHeld(t *testing.T) {
	// A machine that stands still for most of a lease gives it to the other, rightly.
	for lease := time.Second; lease <= 8*time.Second; lease *= 2 {
		if heldIsHeld(t, lease) {
			return
		}
	}
	t.Error("with no lease was it kept")
}

// heldIsHeld reports whether it is for three leases.
func heldIsHeld(t *testing.T, lease time.Duration) bool {
	conn, _ := dial(t, with(testbroker.URL(t, "redis"), fmt.Sprint("lease=", lease)))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	one := subscribe(t, conn, "q", 1)
	held := expect(t, one, "a")
	two := subscribe(t, conn, "q", 1)
	ctx, cancel := context.WithTimeout(context.Background(), 3*lease)
	defer cancel()
	if n, err := two.Receive(ctx, make([]*driver.Delivery, 1)); !errors.Is(err, context.DeadlineExceeded) {
		t.Logf("with a lease of %v a held message went to another: %d, %v", lease, n, err)
		return false
	}
	if err := one.Settle(ctxT(t), held[0], driver.Ack, 0); err != nil {
		t.Logf("with a lease of %v: %v", lease, err)
		return false
	}
	info(t, conn, "q", driver.QueueInfo{Consumers: 2})
	return true
}
