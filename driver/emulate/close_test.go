package emulate

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestCloseAnyTime: whatever is going on, Close ends it: every call returns,
// every publishing is resolved, and synctest sees to it that no goroutine is
// left.
func TestCloseAnyTime(t *testing.T) {
	for seed := range uint64(200) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 22))
			b := newBench(t)
			var mu sync.Mutex
			slow := func(context.Context, string, bool) error {
				mu.Lock()
				d := time.Duration(rng.IntN(3000)) * time.Microsecond
				mu.Unlock()
				time.Sleep(d)
				return nil
			}
			b.f.trouble = slow
			b.f.refuse = func(*Parcel) error {
				mu.Lock()
				defer mu.Unlock()
				switch rng.IntN(4) {
				case 0:
					return driver.ErrUnconfirmed
				case 1:
					return ErrGone
				}
				return nil
			}
			want := plain
			want.Queues = []routing.Queue{{Name: "a", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "b"}, {Name: "b"}}
			b.declare(want)
			var work sync.WaitGroup
			loop := func(step func() error) {
				work.Go(func() {
					for {
						err := step()
						if errors.Is(err, driver.ErrClosed) || errors.Is(err, driver.ErrUnconfirmed) {
							return
						}
						if err != nil {
							t.Errorf("seed %d: %v", seed, err)
							return
						}
					}
				})
			}
			ctx := t.Context()
			p := b.publisher("x")
			for range 2 {
				loop(func() error { return publish(ctx, p, driver.Message{Key: "k"}) })
			}
			s, err := b.c.Subscriber(ctx, driver.SubscriberConfig{Queue: "a", Prefetch: 3})
			if err != nil {
				t.Fatal(err)
			}
			buf := make([]*driver.Delivery, 3)
			loop(func() error {
				n, err := s.Receive(ctx, buf)
				for _, d := range buf[:n] {
					if err := s.Settle(ctx, d, driver.Reject, 0); errors.Is(err, driver.ErrLost) {
						return driver.ErrClosed // given back by Close
					}
				}
				return err
			})
			binding := []routing.Binding{{Exchange: "x", Queue: "b", Key: "other"}}
			loop(func() error {
				if err := b.c.Bind(ctx, binding); err != nil {
					return err
				}
				return b.c.Unbind(ctx, binding)
			})
			time.Sleep(time.Duration(seed) * 300 * time.Microsecond)
			b.close()
			work.Wait()
			for what, err := range map[string]error{"Declare": b.c.Declare(ctx, plain), "Health": b.c.Health(ctx), "Close": b.c.Close(ctx)} {
				if want := driver.ErrClosed; what != "Close" && !errors.Is(err, want) || what == "Close" && err != nil {
					t.Errorf("%s after Close: %v", what, err)
				}
			}
		})
	}
}

// TestCloseInOutage: what cannot be undone because the broker does not answer
// does not hold up the end for long.
func TestCloseInOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var making, down atomic.Bool
		b.f.trouble = func(ctx context.Context, call string, after bool) error {
			if call == "create" && after && making.Load() {
				down.Store(true)
			}
			if !down.Load() {
				return nil
			}
			<-ctx.Done()
			return ctx.Err()
		}
		b.declare(plain)
		making.Store(true)
		b.batch(b.publisher(""), driver.Message{Key: "a", Delay: time.Hour})
		time.Sleep(LeaseTime + time.Second)
		if !down.Load() {
			t.Fatal("nothing was made")
		}
		began := time.Now()
		b.close()
		if took := time.Since(began); took > 2*endTime {
			t.Errorf("Close took %v", took)
		}
	})
}
