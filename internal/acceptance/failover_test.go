package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestLeaderLostUnderLoad: in a cluster of three the leader of a queue is killed,
// then another one hangs. What was confirmed arrives, and publishers and
// subscribers go on by themselves. Those of Redis are in drivers/redis.
func TestLeaderLostUnderLoad(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats"} {
		t.Run(scheme, func(t *testing.T) {
			c := testbroker.StartCluster(t, scheme)
			conn := open(t, c.URL())
			declare(t, conn, routing.Topology{
				Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}},
				Queues:    []routing.Queue{{Name: "q"}},
				Bindings:  []routing.Binding{{Exchange: "x", Queue: "q", Key: "k.#"}},
			})
			for _, fault := range []struct {
				name      string
				lose, end func(*testbroker.Broker)
			}{
				{"killed", (*testbroker.Broker).Kill, (*testbroker.Broker).Start},
				{"hangs", (*testbroker.Broker).Pause, (*testbroker.Broker).Resume},
			} {
				l := newFlow(t, conn, fault.name)
				leader := c.Leader()
				fault.lose(leader)
				lost := time.Now()
				await(t, l.ctx, "another to lead", func() bool { return c.Leader() != leader })
				led := time.Now()
				await(t, l.ctx, "publishing", func() bool { return l.since(led) >= 50 })
				fault.end(leader)
				longest, resumed := l.end()
				t.Logf("%s: another led after %v; the longest publish took %v, and was confirmed %v after another led", fault.name,
					led.Sub(lost).Round(time.Millisecond), longest.Round(time.Millisecond), resumed.Sub(led).Round(time.Millisecond))
			}
		})
	}
}

// flow is a publisher and a subscriber under load.
type flow struct {
	t      *testing.T
	ctx    context.Context
	over   chan struct{}
	sender sync.WaitGroup
	taker  sync.WaitGroup
	finish context.CancelFunc

	mu      sync.Mutex
	sent    []string
	at      []time.Time // confirmed
	came    map[string]bool
	longest time.Duration
	resumed time.Time
}

func newFlow(t *testing.T, conn *polymq.Conn, name string) *flow {
	l := &flow{t: t, ctx: within(t, 3*time.Minute), over: make(chan struct{}), came: map[string]bool{}}
	pub, sub := publisher(t, conn, "x"), subscriber(t, conn, "q", 20)
	l.sender.Go(func() {
		for i := 0; ; i++ {
			id, began := fmt.Sprintf("%s-%d", name, i), time.Now()
			m := &polymq.Message{ID: id, Key: "k.1", Body: []byte(id)}
			if err := pub.Publish(l.ctx, m); err != nil {
				t.Errorf("%s: %v", id, err)
				return
			}
			now := time.Now()
			l.mu.Lock()
			l.sent, l.at = append(l.sent, id), append(l.at, now)
			if took := now.Sub(began); took > l.longest {
				l.longest, l.resumed = took, now
			}
			l.mu.Unlock()
			select {
			case <-l.over:
				return
			default:
			}
		}
	})
	taking, finish := context.WithCancel(l.ctx)
	l.finish = finish
	l.taker.Go(func() {
		for {
			d, err := sub.Receive(taking)
			if err != nil {
				if taking.Err() == nil {
					t.Errorf("Receive: %v", err)
				}
				break
			}
			l.mu.Lock()
			l.came[d.ID] = true
			l.mu.Unlock()
			if err := d.Ack(taking); err != nil && !errors.Is(err, polymq.ErrLost) && taking.Err() == nil {
				t.Errorf("Ack: %v", err)
			}
		}
		if err := sub.Close(l.ctx); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	await(t, l.ctx, "the first messages", func() bool { return l.since(time.Time{}) >= 100 })
	return l
}

// since is how many were confirmed after a moment.
func (l *flow) since(moment time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for i := len(l.at) - 1; i >= 0 && l.at[i].After(moment); i-- {
		n++
	}
	if l.t.Failed() {
		l.t.FailNow()
	}
	return n
}

// end wants all that was confirmed to have come.
func (l *flow) end() (longest time.Duration, resumed time.Time) {
	close(l.over)
	l.sender.Wait()
	missing := func() (ids []string) {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, id := range l.sent {
			if !l.came[id] {
				ids = append(ids, id)
			}
		}
		return ids
	}
	for tick := time.NewTicker(10 * time.Millisecond); len(missing()) > 0; {
		select {
		case <-tick.C:
		case <-l.ctx.Done():
			l.t.Errorf("confirmed, and did not come: %v of %d", missing(), len(l.sent))
			l.finish()
			l.taker.Wait()
			return l.longest, l.resumed
		}
	}
	l.finish()
	l.taker.Wait()
	l.t.Logf("%d were confirmed", len(l.sent))
	return l.longest, l.resumed
}
