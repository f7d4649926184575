package nats

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestDeleteIfEmpty publishes while two connections delete the queue if it is
// empty: a message is not both confirmed and deleted.
func TestDeleteIfEmpty(t *testing.T) {
	url := testbroker.URL(t, "nats")
	c, other := open(t, url), open(t, url)
	p := publisherOf(t, c)
	refused := 0
	for i := range 100 {
		declare(t, c, routing.Queue{Name: "q"})
		var published, deleted, likewise error
		var wg sync.WaitGroup
		wg.Go(func() {
			time.Sleep(time.Duration(i%50) * 60 * time.Microsecond)
			published = publish(t, p, "q", fmt.Sprint("m", i))[0]
		})
		wg.Go(func() { deleted = other.DeleteQueue(within(t), "q", driver.DeleteOptions{IfEmpty: true}) })
		wg.Go(func() { likewise = c.DeleteQueue(within(t), "q", driver.DeleteOptions{IfEmpty: true, IfUnused: true}) })
		wg.Wait()
		switch {
		case published == nil && (deleted == nil || likewise == nil):
			t.Fatalf("round %d: the message was confirmed and the queue deleted as empty", i)
		case published == nil && errors.Is(deleted, driver.ErrInUse) && errors.Is(likewise, driver.ErrInUse):
			refused++
		case errors.Is(published, driver.ErrUnroutable) && deleted == nil && likewise == nil:
		default:
			t.Fatalf("round %d: published %v, deleted %v and %v", i, published, deleted, likewise)
		}
		if err := c.DeleteQueue(within(t), "q", driver.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 100 deletions refused", refused)
}

// TestReopen: a queue that a program closed, which then died, takes messages
// again.
func TestReopen(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	declare(t, c, routing.Queue{Name: "q"})
	h := queueOf(t, s, "q")
	if err := s.shut(within(t), h, "gone"); err != nil {
		t.Fatal(err)
	}
	stream, err := s.js.Stream(within(t), h.stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	at, err := time.Parse(time.RFC3339Nano, cfg.Metadata[metaClosed])
	if err != nil {
		t.Fatal(err)
	}
	cfg.Metadata[metaClosed] = at.Add(-reopenTime).Format(time.RFC3339Nano)
	if _, err := s.js.UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	mustPublish(t, publisherOf(t, c), "q", "m")
	sub := subscribe(t, c, "q", 1)
	if err := c.DeleteQueue(within(t), "q", driver.DeleteOptions{IfUnused: true}); !errors.Is(err, driver.ErrInUse) {
		t.Fatalf("deleting a queue in use: %v", err)
	}
	settle(t, sub, receive(t, sub, 1)[0], driver.Ack, 0)
	mustPublish(t, publisherOf(t, c), "q", "n")
	settle(t, sub, receive(t, sub, 1)[0], driver.Ack, 0)
}
