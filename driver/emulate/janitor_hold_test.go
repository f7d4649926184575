package emulate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestHalfMovedOnce: what one of two targets does not take for much longer than a
// hold lasts the other gets once, also where as many wait as are held at most, so
// that no sweep renews their holds.
func TestHalfMovedOnce(t *testing.T) {
	for _, n := range []int{20, maxAside} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t)
				defer b.close()
				b.f.attentive = true
				b.declare(split(routing.Queue{TTL: time.Second}))
				b.publish("full", "in the way")
				for i := range n {
					b.publish("q", fmt.Sprint(i))
					if n < maxAside {
						time.Sleep(137 * time.Millisecond)
					}
				}
				time.Sleep(5 * time.Minute)
				synctest.Wait()
				if got := len(b.bodies("grave")); got != n {
					t.Errorf("%d dead letters have arrived %d times", n, got)
				}
				s := b.subscribe("full", 1)
				for range n + 1 {
					b.settle(s, b.receive(s), driver.Ack)
				}
				synctest.Wait()
				b.nothing("q")
			})
		})
	}
}

// TestDropFromDeleted: what was moved from a queue that is deleted meanwhile is
// not removed again and again.
func TestDropFromDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		other := b.w.bench(t, 30*time.Second)
		defer other.close()
		var tries atomic.Int32
		b.f.trouble = func(_ context.Context, call string, after bool) error {
			if call != "drop" || after {
				return nil
			}
			if tries.Add(1) == 1 {
				if err := other.c.DeleteQueue(t.Context(), "q", driver.DeleteOptions{}); err != nil {
					t.Error(err)
				}
			}
			return fmt.Errorf("%w: no such stream", ErrGone)
		}
		b.declare(graveyard(routing.Queue{TTL: time.Second}))
		b.publish("q", "m")
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := tries.Load(); n != 1 {
			t.Errorf("%d tries to remove it", n)
		}
		b.want("grave", "m")
	})
}

// TestDeadLetterUntold: a dead letter of which nobody can tell whether its queue
// has it is tried again, and does not stay held for ever.
func TestDeadLetterUntold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.f.attentive = true
		log := b.log()
		b.declare(graveyard(routing.Queue{}))
		var untold atomic.Bool
		untold.Store(true)
		b.f.refuse = func(p *Parcel) error {
			if p.Queue.Name == "grave" && untold.Load() {
				return fmt.Errorf("%w: %w", driver.ErrUnconfirmed, errors.ErrUnsupported)
			}
			return nil
		}
		b.publish("q", "1", "2", "3")
		s := b.subscribe("q", 1)
		for range 3 {
			b.settle(s, b.receive(s), driver.Reject)
		}
		time.Sleep(time.Minute)
		if n := strings.Count(log.String(), "could not be dead-lettered"); n != 1 {
			t.Errorf("logged %d times:\n%s", n, log)
		}
		untold.Store(false)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.want("grave", "1", "2", "3")
		b.nothing("q")
	})
}
