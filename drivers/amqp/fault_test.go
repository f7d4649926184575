package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// load publishes from several goroutines, one message at a time, until end is
// called, or t ends; it returns the IDs of those that were confirmed, to be read
// after end.
func load(t *testing.T, p driver.Publisher, key string) (confirmed map[string]bool, count *atomic.Int64, end func()) {
	confirmed, count = map[string]bool{}, new(atomic.Int64)
	stop, over := make(chan struct{}), make(chan struct{})
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				x := publishing(driver.Message{ID: fmt.Sprintf("%d-%d", w, i), Key: key})
				p.Publish(context.Background(), []*driver.Publishing{x}, true)
				select {
				case <-x.Owner.(*outcome).done:
				case <-over:
					return
				case <-time.After(90 * time.Second):
					t.Errorf("message %s was not resolved", x.ID)
					return
				}
				if err := x.Err(); err != nil {
					t.Errorf("message %s: %v", x.ID, err)
					return
				}
				mu.Lock()
				confirmed[x.ID] = true
				mu.Unlock()
				count.Add(1)
			}
		})
	}
	end = sync.OnceFunc(func() {
		close(stop)
		wg.Wait()
	})
	t.Cleanup(func() {
		close(over) // a test that failed does not wait for outcomes
		end()
	})
	return confirmed, count, end
}

func until(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(90 * time.Second); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 90 s: %s", what)
		}
	}
}

// TestBrokerKilled kills the broker with -9 twice under load: nothing that was
// confirmed is lost, publishers and a subscriber go on by themselves.
func TestBrokerKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: starts a broker")
	}
	b := testbroker.Start(t, "amqp")
	c := openURL(t, b.URL())
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	s := subscribe(t, c, "q", 100)
	// RabbitMQ forgets a declaration that is younger than its next write of
	// the schema when it is killed; a graceful restart would not do that.
	time.Sleep(declareSettles)
	p := publisherOf(t, c, "")
	confirmed, count, end := load(t, p, "q")
	for round := range 2 {
		n := count.Load()
		until(t, "publishing goes on", func() bool { return count.Load() > n+200 })
		b.Kill()
		if round == 0 {
			ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
			if err := c.Health(ctx); err == nil {
				t.Error("Health is nil without a broker")
			}
			cancel()
		}
		b.Start()
	}
	n := count.Load()
	until(t, "publishing goes on after the second kill", func() bool { return count.Load() > n+200 })
	end()
	last := publishing(driver.Message{ID: "last", Key: "q"})
	p.Publish(ctxOf(t), []*driver.Publishing{last}, true)
	check(t, wait(t, last))
	missing := len(confirmed)
	seen := map[string]bool{}
	for buf := make([]*driver.Delivery, 64); missing > 0; {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		k, err := s.Receive(ctx, buf)
		cancel()
		if err != nil {
			t.Fatalf("%d of %d confirmed messages are missing: %v", missing, len(confirmed), err)
		}
		for _, d := range buf[:k] {
			if confirmed[d.Message.ID] && !seen[d.Message.ID] {
				missing--
			}
			seen[d.Message.ID] = true
			if err := s.Settle(ctxOf(t), d, driver.Ack, 0); err != nil && !errors.Is(err, driver.ErrLost) {
				t.Errorf("Ack: %v", err)
			}
		}
	}
	t.Logf("%d messages confirmed over two kills", len(confirmed))
}

const declareSettles = 6 * time.Second
