package amqp

import (
	"errors"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// mute is the URL of a broker that does not tell a consumer that its queue is gone.
func mute(t *testing.T, broker string) string {
	t.Helper()
	return throughFrames(t, broker, func(method uint32, _ []byte) bool { return method != basicCancel })
}

// TestQueueGoneUntold: a subscriber whose queue is deleted finds out though the broker
// does not say so.
func TestQueueGoneUntold(t *testing.T) {
	t.Parallel()
	rawURL := testbroker.URL(t, "amqp")
	c, other := openURL(t, mute(t, rawURL)), openURL(t, rawURL)
	c.idle = 20 * time.Millisecond
	check(t, other.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	s := subscribe(t, c, "q", 10)
	check(t, other.DeleteQueue(ctxOf(t), "q", driver.DeleteOptions{}))
	if _, err := s.Receive(ctxOf(t), make([]*driver.Delivery, 1)); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("Receive from a queue that is gone: %v, want ErrNotFound", err)
	}
}

// TestQueueMadeAnewUntold: it consumes the one that was made in its place.
func TestQueueMadeAnewUntold(t *testing.T) {
	t.Parallel()
	rawURL := testbroker.URL(t, "amqp")
	c, other := openURL(t, mute(t, rawURL)), openURL(t, rawURL)
	c.idle = time.Hour
	queue := routing.Topology{Queues: []routing.Queue{{Name: "q"}}}
	check(t, other.Declare(ctxOf(t), queue))
	s := subscribe(t, c, "q", 10).(*subscriber)
	check(t, other.DeleteQueue(ctxOf(t), "q", driver.DeleteOptions{}))
	check(t, other.Declare(ctxOf(t), queue))
	check(t, publish(t, publisherOf(t, other, ""), driver.Message{ID: "in the new one", Key: "q"}))
	s.mu.Lock()
	first := s.life
	s.mu.Unlock()
	until(t, "it consumes anew", func() bool {
		s.look(first)
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.life != nil && s.life != first
	})
	if d := receive(t, s); d.Message.ID != "in the new one" {
		t.Errorf("received %q", d.Message.ID)
	}
}
