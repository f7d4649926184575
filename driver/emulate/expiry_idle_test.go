package emulate

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestIdleQueueExpires: without a consumer what expires leaves the queue when
// its time is over, by the broker's clock.
func TestIdleQueueExpires(t *testing.T) {
	for i, dlx := range []bool{true, false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			defer b.close()
			b.w.ahead.Store(int64(time.Duration(i-1) * time.Hour))
			want := graveyard(routing.Queue{TTL: 10 * time.Second})
			if !dlx {
				want.Queues[0].DeadLetterExchange, want.Queues[0].DeadLetterKey = "", ""
			}
			b.declare(want)
			time.Sleep(3300 * time.Millisecond)
			b.publish("q", "1")
			time.Sleep(time.Second)
			b.publish("q", "2")
			time.Sleep(9*time.Second - 2*time.Millisecond)
			synctest.Wait()
			b.want("q", "1", "2")
			time.Sleep(4 * time.Millisecond)
			synctest.Wait()
			b.want("q", "2")
			time.Sleep(time.Second)
			synctest.Wait()
			b.want("q")
			if dlx {
				b.want("grave", "1", "2")
			} else {
				b.want("grave")
			}
			b.nothing("q")
		})
	}
}

// TestShortTimeInIdleQueue: also what another process publishes after a pause
// leaves in time.
func TestShortTimeInIdleQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(graveyard(routing.Queue{TTL: 300 * time.Millisecond}))
		other := b.w.bench(t, 30*time.Second)
		defer other.close()
		var want []string
		for i := range 20 {
			time.Sleep(time.Duration(3000+i*77) * time.Millisecond)
			other.publish("q", "m")
			want = append(want, "m")
			time.Sleep(302 * time.Millisecond)
			synctest.Wait()
			b.want("grave", want...)
		}
	})
}

// TestOwnTimeInIdleQueue: a message with a time of its own leaves an idle queue
// when that is over, soon where another process published it.
func TestOwnTimeInIdleQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(graveyard(routing.Queue{TTL: time.Hour}))
		b.publishTTL("q", "first", 10*time.Millisecond)
		time.Sleep(time.Minute)
		b.want("grave", "first")
		b.publish("q", "last")
		for _, ttl := range []time.Duration{50 * time.Millisecond, time.Second} {
			s := b.subscribe("q", 1)
			b.settle(s, b.receive(s), driver.Ack)
			if err := s.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			b.publishTTL("q", "short", ttl)
			time.Sleep(ttl - time.Millisecond)
			synctest.Wait()
			b.want("q", "short")
			time.Sleep(time.Millisecond)
			synctest.Wait()
			b.want("q")
			b.publish("q", "last")
		}
		b.want("grave", "first", "short", "short")
		s := b.subscribe("q", 1)
		b.settle(s, b.receive(s), driver.Ack)
		if err := s.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := b.w.bench(t, 30*time.Second)
		defer other.close()
		time.Sleep(time.Minute)
		other.publishTTL("q", "other", time.Second)
		time.Sleep(time.Second + sweepEvery)
		synctest.Wait()
		b.want("grave", "first", "short", "short", "other")
	})
}
