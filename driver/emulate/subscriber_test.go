package emulate

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func (b *bench) subscribe(queue string, prefetch int) *subscriber {
	b.t.Helper()
	s, err := b.c.Subscriber(b.t.Context(), driver.SubscriberConfig{Queue: queue, Prefetch: prefetch})
	if err != nil {
		b.t.Fatal(err)
	}
	return s.(*subscriber)
}

func (b *bench) publish(key string, bodies ...string) {
	b.t.Helper()
	p := b.publisher("")
	for _, body := range bodies {
		if err := publish(b.t.Context(), p, driver.Message{Key: key, Body: []byte(body)}); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) receive(s driver.Subscriber) *driver.Delivery {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*time.Hour)
	defer cancel()
	var buf [1]*driver.Delivery
	if _, err := s.Receive(ctx, buf[:]); err != nil {
		b.t.Fatal(err)
	}
	return buf[0]
}

func (b *bench) settle(s driver.Subscriber, d *driver.Delivery, o driver.Outcome) {
	b.t.Helper()
	if err := s.Settle(b.t.Context(), d, o, 0); err != nil {
		b.t.Error(err)
	}
}

// TestHeld: holds are extended for as long as the subscriber lives, and no
// more of them than the prefetch.
func TestHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		b.publish("a", "1", "2", "3")
		s := b.subscribe("a", 2)
		d := b.receive(s)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		if n := b.queue("a").extended; n < 25 {
			t.Errorf("extended %d times in ten leases", n)
		}
		if n := len(b.queue("a").held); n != 2 {
			t.Errorf("%d are held with a prefetch of 2", n)
		}
		b.settle(s, d, driver.Ack)
		if err := s.Settle(t.Context(), d, driver.Ack, 0); !errors.Is(err, driver.ErrLost) {
			t.Errorf("settled again: %v", err)
		}
	})
}

// TestLost: a hold that the broker has ended, or that could not be extended in
// time, is ErrLost and is not handed out.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		b.publish("a", "1", "2", "3")
		s := b.subscribe("a", 2)
		d := b.receive(s)
		q := b.queue("a")
		b.w.mu.Lock()
		q.lose = true
		b.w.mu.Unlock()
		if err := s.Extend(t.Context(), d); !errors.Is(err, driver.ErrLost) {
			t.Errorf("Extend: %v", err)
		}
		for what, err := range map[string]error{"Extend": s.Extend(t.Context(), d), "Ack": s.Settle(t.Context(), d, driver.Ack, 0), "Reject": s.Settle(t.Context(), d, driver.Reject, 0)} {
			if !errors.Is(err, driver.ErrLost) {
				t.Errorf("%s of a lost hold: %v", what, err)
			}
		}
		b.w.mu.Lock()
		q.lose = true
		b.w.mu.Unlock()
		time.Sleep(11 * time.Second) // the keeper hears that the prefetched one is lost too
		b.w.mu.Lock()
		q.give()
		b.w.mu.Unlock()
		if d := b.receive(s); string(d.Message.Body) != "3" {
			t.Errorf("%s was handed out after its hold was lost", d.Message.Body)
		}
	})
}

func TestExpiredHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := newInbox(&Queue{}, 3, time.Second)
		in.Put(&Delivery{Seq: 1}, &Delivery{Seq: 2})
		var buf [3]*driver.Delivery
		if n, err := in.take(t.Context(), buf[:1]); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		time.Sleep(time.Second)
		in.Put(&Delivery{Seq: 3})
		if n, err := in.take(t.Context(), buf[1:]); n != 1 || err != nil || buf[1].Tag.(*Delivery).Seq != 3 {
			t.Errorf("took %d, %v", n, err)
		}
		if in.release(buf[0].Tag.(*Delivery)) {
			t.Error("a hold outlasted its lease")
		}
		if room := in.Room(); room != 2 {
			t.Errorf("there is room for %d, want 2", room)
		}
	})
}

// TestInboxRoom: the producer is told of room, and Drain tells what was taken.
func TestInboxRoom(t *testing.T) {
	in := newInbox(&Queue{}, 4, 0)
	put := func(n int) {
		for range n {
			in.Put(&Delivery{})
		}
	}
	more := func() bool {
		select {
		case <-in.More():
			return true
		default:
			return false
		}
	}
	put(4)
	var buf [4]*driver.Delivery
	if n, err := in.take(t.Context(), buf[:2]); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	in.release(buf[0].Tag.(*Delivery))
	if more() {
		t.Error("one place of four is worth a fetch while there is something to take")
	}
	in.release(buf[1].Tag.(*Delivery))
	if !more() || in.Room() != 2 {
		t.Error("half the prefetch is not worth a fetch")
	}
	put(1)
	if n, err := in.take(t.Context(), buf[:1]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	in.Fail(driver.ErrClosed)
	if in.Room() != 0 {
		t.Error("there is room after the end")
	}
	if n, err := in.take(t.Context(), buf[:]); n != 0 || !errors.Is(err, driver.ErrClosed) {
		t.Errorf("took %d, %v after the end", n, err)
	}
	prefetched, handed := in.Drain()
	if len(prefetched) != 2 || len(handed) != 1 || handed[0] != buf[0].Tag {
		t.Errorf("drained %d prefetched, %d handed out", len(prefetched), len(handed))
	}
	if in.release(handed[0]) {
		t.Error("a drained delivery is held")
	}
}

// TestInboxOver: what a store puts beyond the prefetch comes back to it.
func TestInboxOver(t *testing.T) {
	in := newInbox(&Queue{}, 2, 0)
	a, b, c := &Delivery{Seq: 1}, &Delivery{Seq: 2}, &Delivery{Seq: 3}
	if over := in.Put(a, b, c); len(over) != 1 || over[0] != c || c.held {
		t.Errorf("%d are over", len(over))
	}
	var buf [3]*driver.Delivery
	if n, err := in.take(t.Context(), buf[:]); n != 2 || err != nil {
		t.Errorf("took %d, %v", n, err)
	}
	if over := in.Put(c); len(over) != 1 {
		t.Error("more than the prefetch is held, though the buffer has room")
	}
	in.release(a)
	if over := in.Put(c); len(over) != 0 || buf[0].Message.Body == nil || len(buf[0].Message.Body) != 0 {
		t.Errorf("%d are over, an empty body is %#v", len(over), buf[0].Message.Body)
	}
}

// TestTooManyAttempts: a message that arrives exhausted is not handed out.
func TestTooManyAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 2, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "grave"}, {Name: "grave"}}})
		b.publish("q", "exhausted", "fresh")
		b.queue("q").messages[0].Attempt = 3
		s := b.subscribe("q", 2)
		if d := b.receive(s); string(d.Message.Body) != "fresh" {
			t.Errorf("%s was handed out", d.Message.Body)
		}
		synctest.Wait()
		b.want("grave", "exhausted")
	})
}

// TestCloseExhausts: what a closed subscriber was handed for the last time is
// dead-lettered by Close, not by whoever subscribes next.
func TestCloseExhausts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 1, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "grave"}, {Name: "grave"}}})
		b.publish("q", "handed out", "prefetched")
		s := b.subscribe("q", 2)
		b.receive(s)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.want("grave", "handed out")
		b.want("q", "prefetched")
	})
}

// TestCloseGivesBack: what a closed subscriber held comes again, counted if it
// was handed out.
func TestCloseGivesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(plain)
		b.publish("a", "1", "2")
		s := b.subscribe("a", 2)
		b.receive(s)
		blocked := make(chan error)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		go func() {
			_, err := s.Receive(context.Background(), make([]*driver.Delivery, 1))
			blocked <- err
		}()
		if err := <-blocked; !errors.Is(err, driver.ErrClosed) {
			t.Errorf("Receive after Close: %v", err)
		}
		attempts := map[string]int{}
		for _, d := range b.queue("a").messages {
			attempts[string(d.Message.Body)] = d.Attempt
		}
		if attempts["1"] != 2 || attempts["2"] != 1 || len(attempts) != 2 {
			t.Errorf("attempts %v", attempts)
		}
	})
}
