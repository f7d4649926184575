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
	expect(t, sub, ids...)
}
