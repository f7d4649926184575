package nats

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// publishFor publishes messages that live for a time.
func publishFor(t testing.TB, p driver.Publisher, queue string, ttl time.Duration, ids ...string) {
	t.Helper()
	for _, id := range ids {
		o := &outcome{left: 1, done: make(chan struct{})}
		pub := &driver.Publishing{Message: &driver.Message{Key: queue, Body: []byte(id), TTL: ttl}, ID: id, Owner: o}
		p.Publish(within(t), []*driver.Publishing{pub}, true)
		select {
		case <-o.done:
		case <-time.After(20 * time.Second):
			t.Fatal("not resolved")
		}
		if pub.Err() != nil {
			t.Fatal(pub.Err())
		}
	}
}

// TestExpiry: what is over goes to the dead letters, and only from the head,
// in a queue with a book and in one without.
func TestExpiry(t *testing.T) {
	for name, q := range map[string]routing.Queue{
		"plain":  {},
		"kept":   {MaxPriority: 1},
		"for-it": {TTL: 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, testbroker.URL(t, "nats"))
			q.Name, q.DeadLetterExchange, q.DeadLetterKey = "q", routing.DefaultExchange, "dead"
			declare(t, c, q, routing.Queue{Name: "dead"})
			p := publisherOf(t, c)
			dead := subscribe(t, c, "dead", 10)
			long := time.Hour
			publishFor(t, p, "q", 50*time.Millisecond, "a", "b")
			publishFor(t, p, "q", long, "c")
			publishFor(t, p, "q", 50*time.Millisecond, "d")
			for _, want := range []string{"a", "b"} {
				d := receive(t, dead, 1)[0]
				if d.Message.ID != want || d.Message.TTL != 0 {
					t.Fatalf("%+v", d)
				}
				settle(t, dead, d, driver.Ack, 0)
			}
			if q.TTL == 0 {
				s := subscribe(t, c, "q", 1)
				expect(t, s, "c")
			} else {
				expect(t, dead, "c")
			}
			expect(t, dead, "d")
			for end := time.Now().Add(20 * time.Second); ; { // a dead letter is there before the message is gone
				info := inspect(t, c, "q")
				if info.Ready+info.Unsettled == 0 {
					break
				}
				if time.Now().After(end) {
					t.Fatalf("%+v", info)
				}
			}
		})
	}
}

// TestOverflow: what the limits push out goes to the dead letters.
func TestOverflow(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q", MaxBytes: 4, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"}, routing.Queue{Name: "dead"})
	p := publisherOf(t, c)
	mustPublish(t, p, "q", "m0", "m1", "m2", "m3", "large")
	dead := subscribe(t, c, "dead", 10)
	expect(t, dead, "m0", "m1", "m2", "m3", "large")
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{}) {
		t.Fatalf("%+v", info)
	}
}

// TestUsage: what a queue says of its use, with and without a book.
func TestUsage(t *testing.T) {
	for name, q := range map[string]routing.Queue{
		"plain": {Name: "q", Expires: time.Hour},
		"kept":  {Name: "q", Expires: time.Hour, MaxPriority: 1},
	} {
		t.Run(name, func(t *testing.T) {
			url := testbroker.URL(t, "nats")
			s := openRaw(t, url)
			c := emulated(t, s)
			declare(t, c, q)
			eq := stored2queue(t, s, q)
			usage := func() (int, bool, time.Duration) {
				t.Helper()
				u, err := s.Usage(within(t), eq)
				if err != nil {
					t.Fatal(err)
				}
				return u.Consumers, u.Used, u.Idle
			}
			// longer reports whether a queue is idle since before began. The server's clock
			// may differ by a little; what happened before is four times as far away.
			longer := func(idle time.Duration, began time.Time) bool {
				return idle > time.Since(began)+5*time.Millisecond
			}
			time.Sleep(20 * time.Millisecond)
			if n, used, idle := usage(); n != 0 || used || idle < 20*time.Millisecond {
				t.Fatal(n, used, idle)
			}
			began := time.Now()
			if err := s.Touch(within(t), eq); err != nil {
				t.Fatal(err)
			}
			if n, used, idle := usage(); n != 0 || used || longer(idle, began) {
				t.Fatal(n, used, idle)
			}
			sub := subscribe(t, open(t, url), "q", 1)
			if n, used, idle := usage(); n != 1 || !used || idle != 0 {
				t.Fatal(n, used, idle)
			}
			time.Sleep(20 * time.Millisecond)
			began = time.Now()
			if err := sub.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			if n, used, idle := usage(); n != 0 || !used || longer(idle, began) {
				t.Fatal(n, used, idle)
			}
			link := testbroker.Proxy(t, url+"&lease=1s")
			subscribe(t, open(t, link.URL()), "q", 1)
			link.Refuse(true)
			link.Cut()
			defer link.Refuse(false)
			for n := 1; n != 0; n, _, _ = usage() {
				time.Sleep(20 * time.Millisecond)
			}
			time.Sleep(20 * time.Millisecond)
			began = time.Now()
			if err := s.Touch(within(t), eq); err != nil {
				t.Fatal(err)
			}
			if n, used, idle := usage(); n != 0 || !used || longer(idle, began) {
				t.Fatal(n, used, idle)
			}
		})
	}
}

func TestDeleteIfIdle(t *testing.T) {
	for _, q := range []routing.Queue{{Name: "q", Expires: time.Hour}, {Name: "q", Expires: time.Hour, MaxLength: 1}} {
		s := openRaw(t, testbroker.URL(t, "nats"))
		c := emulated(t, s)
		declare(t, c, q)
		eq := stored2queue(t, s, q)
		if err := s.DeleteQueue(within(t), eq, idleFor(time.Hour)); !errors.Is(err, driver.ErrInUse) {
			t.Fatal(err)
		}
		mustPublish(t, publisherOf(t, c), "q", "m")
		if err := s.DeleteQueue(within(t), eq, idleFor(time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if there, err := s.QueueExists(within(t), eq); there || err != nil {
			t.Fatal(there, err)
		}
	}
}

// TestLead: one leads, and another when its term is over or it resigns.
func TestLead(t *testing.T) {
	url := testbroker.URL(t, "nats")
	a, b := openRaw(t, url), openRaw(t, url)
	lead := func(s *store, client string, term time.Duration, want bool) {
		t.Helper()
		leads, err := s.Lead(within(t), client, term)
		if err != nil || leads != want {
			t.Fatal(client, leads, err)
		}
	}
	lead(a, "a", time.Minute, true)
	lead(b, "b", time.Minute, false)
	lead(a, "a", time.Minute, true)
	lead(b, "b", 0, false)
	lead(a, "a", 0, false)
	lead(b, "b", 10*time.Second, true) // it is to last until the next call, on a busy machine too
	lead(a, "a", time.Minute, false)
	deadline := time.Now().Add(time.Minute)
	for leads := false; !leads; time.Sleep(20 * time.Millisecond) {
		var err error
		if leads, err = a.Lead(within(t), "a", time.Minute); err != nil || time.Now().After(deadline) {
			t.Fatal(fmt.Errorf("the term does not end: %w", err))
		}
	}
	if ls, _, err := a.Leases(within(t)); len(ls) != 0 || err != nil {
		t.Fatal(ls, err)
	}
}
