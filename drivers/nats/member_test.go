package nats

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestHoldsLapse: a subscriber that hears for longer than its lease that it lives
// too late gives up what it was handed; it comes again, though its signs of life
// went out all the time.
func TestHoldsLapse(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats")+"&lease=1s")
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	sub := subscribe(t, c, "q", 5)
	ids := numbered("m", 0, 5)
	mustPublish(t, publisherOf(t, c), "q", ids...)
	first := receive(t, sub, 1)[0]
	l, err := s.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	for ctx := within(t); ; {
		l.mu.Lock()
		if l.trail != nil {
			l.trail.dead = true
		}
		l.mu.Unlock()
		late, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		err := sub.Extend(late, first)
		cancel()
		if errors.Is(err, driver.ErrLost) {
			break
		}
	}
	signal(l.relink)
	// Those that it had not handed out yet may have a moment left.
	done := map[string]bool{}
	for len(done) < len(ids) {
		d := receive(t, sub, 1)[0]
		switch err := sub.Settle(within(t), d, driver.Ack, 0); {
		case err == nil:
			done[d.Message.ID] = true
		case !errors.Is(err, driver.ErrLost):
			t.Fatal(err)
		}
	}
}

// TestOrderOfAnotherBook: what a subscriber was given while its process did not
// read the log comes in order, though the log was cut short meanwhile.
func TestOrderOfAnotherBook(t *testing.T) {
	url := testbroker.URL(t, "nats")
	s, other := openRaw(t, url), openRaw(t, url)
	c, oc := emulated(t, s), emulated(t, other)
	q := routing.Queue{Name: "q", SingleActiveConsumer: true}
	declare(t, c, q)
	p := publisherOf(t, c)
	const n = 50
	sub := subscribe(t, c, "q", n)
	l, err := s.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.trail.dead = true // paused
	l.mu.Unlock()
	ids := numbered("m", 0, n)
	mustPublish(t, p, "q", ids...)
	if info := inspect(t, oc, "q"); info.Unsettled != n {
		t.Fatalf("%+v", info)
	}
	ol, err := other.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	if err := ol.settleUp(within(t)); err != nil {
		t.Fatal(err)
	}
	signal(l.relink)
	expect(t, sub, ids...)
}
