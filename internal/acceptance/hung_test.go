package acceptance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/deadline"
	"github.com/polymq/polymq/internal/leak"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// A hung broker has its sockets open and answers nothing.

// TestHungBroker: the only broker hangs while every sort of call is under way. All of
// them, and Close above all, end with their ctx, and leave no goroutine while the
// broker still hangs. TestSilentBroker is on the calls that begin while it does.
func TestHungBroker(t *testing.T) {
	brokers := map[string]*testbroker.Broker{}
	for _, scheme := range all[1:] {
		brokers[scheme] = testbroker.Start(t, scheme)
	}
	t.Run("of", func(t *testing.T) {
		for scheme, b := range brokers {
			t.Run(scheme, func(t *testing.T) {
				t.Parallel()
				brokerHangs(t, b)
			})
		}
	})
	nothingLeft(t)
}

// brokerHangs leaves the broker paused.
func brokerHangs(t *testing.T, b *testbroker.Broker) {
	ctx := within(t, time.Minute)
	conn, err := polymq.Open(ctx, b.URL(), nil)
	if err != nil {
		t.Fatal(err)
	}
	queues := []routing.Queue{{Name: "q"}, {Name: "silent"}, {Name: "limited", MaxLength: 10}, {Name: "mine", Exclusive: true}}
	declare(t, conn, routing.Topology{Queues: queues})
	pub := publisher(t, conn, "")
	subs := map[string]*polymq.Subscriber{}
	for _, q := range queues {
		subs[q.Name] = subscriber(t, conn, q.Name, 10)
	}
	running := subscriber(t, conn, "silent", 10)
	r := requester(t, conn)
	held := map[string][]*polymq.Delivery{}
	for _, q := range []string{"q", "limited"} {
		send(t, ctx, pub, q, "1", "2", "3")
		if held[q], err = subs[q].ReceiveBatch(ctx, 2); err == nil && len(held[q]) < 2 {
			more, e := subs[q].ReceiveBatch(ctx, 1)
			held[q], err = append(held[q], more...), e
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := pub.Publish(ctx, &polymq.Message{Key: "silent", Delay: time.Hour}); err != nil {
		t.Fatal(err)
	}

	var calls underWay
	receive := func(q string) {
		calls.begin("Receive from "+q, func() error {
			for {
				if _, err := subs[q].Receive(ctx); err != nil {
					return err
				}
			}
		})
	}
	receive("silent")
	receive("mine")
	calls.begin("Run", func() error {
		return running.Run(ctx, func(context.Context, *polymq.Delivery) error { return nil })
	})
	b.Pause()
	for _, m := range []*polymq.Message{{Key: "q"}, {Key: "limited"}, {Key: "q", Delay: time.Hour}} {
		calls.begin("Publish", func() error { return pub.Publish(ctx, m) })
	}
	calls.begin("Call", func() error { _, err := r.Call(ctx, &polymq.Message{Key: "silent"}); return err })
	for q, ds := range held {
		receive(q)
		calls.begin("Ack from "+q, func() error { return ds[0].Ack(ctx) })
		calls.begin("Nack from "+q, func() error { return ds[1].Nack(ctx, time.Hour) })
	}
	calls.begin("Declare", func() error {
		return conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "another"}}})
	})
	calls.begin("DeleteQueue", func() error { return conn.DeleteQueue(ctx, "silent", nil) })
	calls.begin("Purge", func() error { _, err := conn.Purge(ctx, "limited"); return err })
	calls.begin("Subscriber", func() error { _, err := conn.Subscriber(ctx, "limited", nil); return err })
	calls.begin("Inspect", func() error { _, err := conn.Inspect(ctx, "q"); return err })
	calls.begin("Health", func() error { return conn.Health(ctx) })

	inTime(t, "Open", time.Second, func(ctx context.Context) error {
		_, err := polymq.Open(ctx, b.URL(), nil)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open: %v", err)
		}
		return err
	})
	var closing sync.WaitGroup
	for _, q := range []string{"q", "silent", "limited"} {
		closing.Go(func() { inTime(t, "Close of the subscriber of "+q, 2*time.Second, subs[q].Close) })
	}
	closing.Go(func() { inTime(t, "Close of the publisher", 2*time.Second, pub.Close) })
	closing.Wait()
	inTime(t, "Close of the connection", 2*time.Second, conn.Close)
	calls.ended(t)
}

// underWay are calls that have begun.
type underWay struct {
	mu   sync.Mutex
	open []string
}

func (u *underWay) begin(what string, call func() error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.open = append(u.open, what)
	go func() {
		_ = call()
		u.mu.Lock()
		defer u.mu.Unlock()
		u.open = slices.DeleteFunc(u.open, func(o string) bool { return o == what })
	}()
}

// ended wants all of them to have returned, or to do so soon.
func (u *underWay) ended(t *testing.T) {
	t.Helper()
	var open []string
	for deadline := time.Now().Add(endTime); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		u.mu.Lock()
		open = slices.Clone(u.open)
		u.mu.Unlock()
		if len(open) == 0 {
			return
		}
	}
	t.Errorf("still under way: %v", open)
}

// endTime is how long what goes on after a Close that was not answered may take: the
// drivers' own patience with a broker, and that of a loaded machine.
const endTime = 15 * time.Second

// inTime wants call to return when its ctx, which lasts for d, has ended.
func inTime(t *testing.T, what string, d time.Duration, call func(context.Context) error) error {
	t.Helper()
	late, err := deadline.Call(context.Background(), d, patience, call)
	if late {
		t.Errorf("%s had not returned %v after the end of its ctx of %v: %v", what, patience, d, err)
	}
	return err
}

// nothingLeft wants the library and its clients to have no goroutine any more, or not
// for long.
func nothingLeft(t *testing.T) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(endTime); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		left = slices.DeleteFunc(leak.Left(0), func(stack string) bool { return strings.Contains(stack, "internal/testbroker.") })
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("%d goroutines are left:\n\n%s", len(left), strings.Join(left, "\n\n"))
}
