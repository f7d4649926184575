package nats

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestPublishAndConsume(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "Bestellungen für Köln"})
	p := publisherOf(t, c)
	ids := numbered("m", 0, 200)
	mustPublish(t, p, "Bestellungen für Köln", ids...)
	s := subscribe(t, c, "Bestellungen für Köln", 7)
	for i := range ids {
		d := receive(t, s, 1)[0]
		if d.Message.ID != ids[i] || string(d.Message.Body) != ids[i] || d.Attempt != 1 || d.Redelivered || d.Queue != "Bestellungen für Köln" {
			t.Fatalf("delivery %d: %+v", i, d)
		}
		settle(t, s, d, driver.Ack, 0)
	}
	if err := s.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	info, err := c.Inspect(within(t), "Bestellungen für Köln")
	if err != nil || info != (driver.QueueInfo{}) {
		t.Fatalf("%+v, %v", info, err)
	}
}

func TestPrefetchedDoesNotCount(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q"})
	mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, 5)...)
	for range 3 { // handed out: m0 only
		s := subscribe(t, c, "q", 5)
		receive(t, s, 1)
		if err := s.Close(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	s := subscribe(t, c, "q", 5)
	attempts := map[string]int{}
	for _, d := range receive(t, s, 5) {
		attempts[d.Message.ID] = d.Attempt
		settle(t, s, d, driver.Ack, 0)
	}
	total := 0
	for _, n := range attempts {
		total += n
	}
	// Three deliveries were handed out and given back.
	if len(attempts) != 5 || total != 5+3 {
		t.Fatalf("attempts %v, want three above one each", attempts)
	}
	s.Close(within(t))
}

func TestInspectAndPurge(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q"})
	mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, 10)...)
	check := func(want driver.QueueInfo) {
		t.Helper()
		info, err := c.Inspect(within(t), "q")
		if err != nil || info != want {
			t.Fatalf("%+v, %v; want %+v", info, err, want)
		}
	}
	check(driver.QueueInfo{Ready: 10})
	a, b := subscribe(t, c, "q", 2), subscribe(t, c, "q", 3)
	da, db := receive(t, a, 2), receive(t, b, 3)
	check(driver.QueueInfo{Ready: 5, Unsettled: 5, Consumers: 2})
	if err := b.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	check(driver.QueueInfo{Ready: 8, Unsettled: 2, Consumers: 1})
	n, err := c.Purge(within(t), "q")
	if err != nil || n != 8 {
		t.Fatalf("purged %d, %v; want 8", n, err)
	}
	check(driver.QueueInfo{Unsettled: 2, Consumers: 1})
	settle(t, a, da[0], driver.Ack, 0)
	settle(t, a, da[1], driver.Nack, time.Hour)
	if err := a.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	check(driver.QueueInfo{Ready: 1})
	if n, err := c.Purge(within(t), "q"); err != nil || n != 1 {
		t.Fatalf("purged %d, %v; want the delayed one", n, err)
	}
	check(driver.QueueInfo{})
	_ = db
}

// TestRefill: however few messages come at a time and however they are settled, a
// subscriber that has room asks for the next ones, and holds no more than its
// prefetch.
func TestRefill(t *testing.T) {
	for _, prefetch := range []int{1, 2, 3, 16} {
		t.Run(strconv.Itoa(prefetch), func(t *testing.T) {
			c := open(t, testbroker.URL(t, "nats"))
			declare(t, c, routing.Queue{Name: "q"})
			p, s := publisherOf(t, c), subscribe(t, c, "q", prefetch)
			// What stalls goes on with the next heartbeat: too slowly for all of it.
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			buf := make([]*driver.Delivery, 1)
			for n := 1; n <= 40; n++ {
				mustPublish(t, p, "q", numbered(strconv.Itoa(n)+"-", 0, n)...)
				var held []*driver.Delivery
				for left := n; left > 0; {
					if _, err := s.Receive(ctx, buf); err != nil {
						t.Fatalf("%d of %d still to come: %v", left, n, err)
					}
					if held = append(held, buf...); len(held) > prefetch {
						t.Fatalf("holds %d", len(held))
					}
					left--
					// Some settle at once, some when they hold all that they may.
					if n%3 > 0 && len(held) < min(prefetch, left+len(held)) {
						continue
					}
					for i, d := range held {
						o := driver.Ack
						if n%3 == 2 && i == 0 && d.Attempt == 1 {
							o = driver.Nack
							left++
						}
						settle(t, s, d, o, 0)
					}
					held = held[:0]
				}
				for _, d := range held {
					settle(t, s, d, driver.Ack, 0)
				}
			}
			if err := s.Close(within(t)); err != nil {
				t.Fatal(err)
			}
			if info, err := c.Inspect(within(t), "q"); err != nil || info != (driver.QueueInfo{}) {
				t.Fatalf("%+v, %v", info, err)
			}
		})
	}
}

// TestMoreThanAsked: where two leaders answer one request, what is held stays held, and
// nothing more is asked for.
func TestMoreThanAsked(t *testing.T) {
	raw := openRaw(t, testbroker.URL(t, "nats"))
	conn := emulated(t, raw)
	declare(t, conn, routing.Queue{Name: "q"})
	mustPublish(t, publisherOf(t, conn), "q", "m")
	s := subscribe(t, conn, "q", 1)
	d := receive(t, s, 1)[0]
	c := consumerOf(t, raw)
	c.mu.Lock()
	for seq, held := range c.holds {
		again := &hold{ack: held.ack, until: held.until}
		again.Seq, again.Ref = seq, again
		c.place(c.link, []*hold{again}, time.Now())
		if c.holds[seq] != held || c.promised() != 0 {
			t.Errorf("held: %v; asked for: %d", c.holds[seq] == held, c.promised())
		}
	}
	c.mu.Unlock()
	settle(t, s, d, driver.Ack, 0)
	if err := s.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if info := inspect(t, conn, "q"); info != (driver.QueueInfo{}) {
		t.Fatalf("%+v", info)
	}
}

// TestUncountedOfGoneLink: what waits to be placed takes of the room, also when the link
// that it came on is no more.
func TestUncountedOfGoneLink(t *testing.T) {
	l := &link{promised: 3}
	c := &consumer{
		links:     map[*link]struct{}{l: {}},
		uncounted: []arrival{{l: l}, {l: &link{}}},
		looking:   []arrival{{l: &link{}}},
	}
	if n := c.promised(); n != 5 {
		t.Errorf("%d are asked for and not placed", n)
	}
}
