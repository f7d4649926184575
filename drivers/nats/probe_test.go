package nats

import (
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// consumerOf is the only consumer of a store.
func consumerOf(t testing.TB, s *store) *consumer {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.consumers {
		return c
	}
	t.Fatal("nobody consumes")
	return nil
}

// TestProbesUnanswered: after more probes without an echo than are kept, as of a leader
// that hung for long, the next one's echo makes what arrives new again.
func TestProbesUnanswered(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats")+"&lease=1s")
	conn := emulated(t, s)
	declare(t, conn, routing.Queue{Name: "q"})
	sub, pub := subscribe(t, conn, "q", 1), publisherOf(t, conn)
	mustPublish(t, pub, "q", "before")
	settle(t, sub, receive(t, sub, 1)[0], driver.Ack, 0)
	c := consumerOf(t, s)
	c.mu.Lock()
	l := c.link
	for range maxProbes {
		l.probed++
		l.probes[l.probed] = time.Now()
	}
	l.fresh = l.fresh.Add(-time.Minute)
	c.mu.Unlock()
	mustPublish(t, pub, "q", "after")
	settle(t, sub, receive(t, sub, 1)[0], driver.Ack, 0)
}

// TestProbesOfLongLease: a probe that is passed over tells of a leader that hung, for
// which there must be probes while it hangs.
func TestProbesOfLongLease(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats")+"&lease=10m")
	conn := emulated(t, s)
	declare(t, conn, routing.Queue{Name: "q"})
	subscribe(t, conn, "q", 1)
	c := consumerOf(t, s)
	for ctx := within(t); ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		probed := c.link != nil && c.link.probed > 0
		c.mu.Unlock()
		if probed {
			return
		}
	}
	t.Fatal("no probe")
}
