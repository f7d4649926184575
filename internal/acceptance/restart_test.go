package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// Promises 10 and 21: publishers and subscribers go on by themselves after
// connections were cut and the broker was killed, and nothing that was
// confirmed is lost.
func TestOutage(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			broker := testbroker.Start(t, scheme)
			link := testbroker.Proxy(t, broker.URL())
			faults := []struct {
				name string
				do   func()
			}{
				{"cut", link.Cut},
				{"refused", func() {
					link.Refuse(true)
					link.Cut()
					time.Sleep(300 * time.Millisecond) // how long the outage is
					link.Refuse(false)
				}},
				{"killed", func() {
					broker.Restart()
					link.Cut() // what was opened to the broker while it was down
				}},
			}
			publishing, consuming := open(t, link.URL()), open(t, link.URL())
			declare(t, publishing, routing.Topology{
				Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
				Queues:    []routing.Queue{{Name: "q"}},
				Bindings:  []routing.Binding{{Exchange: "x", Queue: "q", Key: "k.#"}},
			})

			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			var stop, failed atomic.Bool
			var wg, consumer sync.WaitGroup
			defer func() { // also after a failure
				cancel()
				wg.Wait()
				consumer.Wait()
			}()
			var confirmed atomic.Int64
			pub := publisher(t, publishing, "x")
			const publishers = 4
			counts := make([]int, publishers)
			for p := range publishers {
				wg.Go(func() {
					for !stop.Load() {
						err := pub.Publish(ctx, &polymq.Message{ID: fmt.Sprintf("%d/%d", p, counts[p]), Key: "k.1", Body: []byte("body")})
						if err != nil {
							if failed.Store(true); !stop.Load() && ctx.Err() == nil {
								t.Errorf("publish: %v", err)
							}
							return
						}
						counts[p]++
						confirmed.Add(1)
					}
				})
			}

			var mu sync.Mutex
			received := make(map[string]int)
			sub := subscriber(t, consuming, "q", 64)
			consumeCtx, stopConsuming := context.WithCancel(ctx)
			defer stopConsuming()
			consumer.Go(func() {
				for {
					d, err := sub.Receive(consumeCtx)
					if err != nil {
						if consumeCtx.Err() == nil {
							t.Errorf("receive: %v", err)
						}
						return
					}
					mu.Lock()
					received[d.ID]++
					mu.Unlock()
					// A hold that was lost with its connection comes again.
					if err := d.Ack(consumeCtx); err != nil && !errors.Is(err, polymq.ErrLost) && consumeCtx.Err() == nil {
						t.Errorf("ack: %v", err)
						return
					}
				}
			})

			// Both sides must get on by some messages between the faults.
			progress := func(after string) {
				sent := confirmed.Load() + 200
				mu.Lock()
				seen := len(received) + 200
				mu.Unlock()
				await(t, ctx, "publishing after "+after, func() bool { return failed.Load() || confirmed.Load() >= sent })
				await(t, ctx, "consuming after "+after, func() bool {
					mu.Lock()
					defer mu.Unlock()
					return failed.Load() || len(received) >= seen
				})
				if failed.Load() {
					t.FailNow() // it has been said why
				}
			}
			progress("the start")
			for _, f := range faults {
				f.do()
				progress(f.name)
			}
			stop.Store(true)
			wg.Wait()

			missing := func() (ids []string) {
				mu.Lock()
				defer mu.Unlock()
				for p, n := range counts {
					for i := range n {
						if id := fmt.Sprintf("%d/%d", p, i); received[id] == 0 {
							ids = append(ids, id)
						}
					}
				}
				return ids
			}
			defer func() {
				ids := missing()
				if len(ids) > 0 {
					t.Errorf("%d of %d confirmed messages are lost, among them %v", len(ids), confirmed.Load(), ids[:min(5, len(ids))])
				}
				again := 0
				for _, n := range received {
					again += n - 1
				}
				t.Logf("%d confirmed, %d received again", confirmed.Load(), again)
			}()
			// Messages held at a fault come when their lease ends.
			await(t, ctx, "all that was confirmed", func() bool { return len(missing()) == 0 })
			stopConsuming()
			consumer.Wait()
		})
	}
}

// await polls until done, or fails t at the end of ctx.
func await(t *testing.T, ctx context.Context, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}
