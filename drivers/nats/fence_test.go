package nats

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestLeaveUnderLoad: subscribers close, and leave links, while messages are on their way
// to them. In a cluster what arrives after the unsubscribing is lost for a lease, and has
// an attempt more that nobody saw.
func TestLeaveUnderLoad(t *testing.T) {
	cluster := testbroker.StartCluster(t, "nats")
	admin := openRaw(t, cluster.URL())
	conn := emulated(t, admin)
	for place, name := range []string{"leader", "other"} {
		t.Run(name, func(t *testing.T) {
			// A machine that stands still for longer than a link waits can lose some.
			for round := range 3 {
				lost := leaveUnderLoad(t, cluster, admin, conn, fmt.Sprint(name, round), place)
				if lost == 0 {
					return
				}
				t.Logf("round %d: %d came with an attempt that nobody had seen", round, lost)
			}
			t.Error("each round lost some")
		})
	}
}

// leaveUnderLoad consumes a queue of its own at the node that leads it, or that is so many
// places further, and counts what does not come as the first attempt.
func leaveUnderLoad(t *testing.T, cluster *testbroker.Cluster, admin *store, conn driver.Conn, name string, place int) (lost int) {
	const messages, prefetch = 1500, 100
	declare(t, conn, routing.Queue{Name: name})
	info, err := admin.js.Consumer(within(t), queueOf(t, admin, name).stream, consumerName)
	if err != nil {
		t.Fatal(err)
	}
	leader := nodeNamed(t, cluster, info.CachedInfo().Cluster.Leader)
	raw := openRaw(t, cluster.Nodes[(leader+place)%len(cluster.Nodes)].URL())
	raw.calm = time.Second // a busy machine has pauses of fenceCalm
	near := emulated(t, raw)
	for i := 0; i < messages; i += prefetch {
		mustPublish(t, publisherOf(t, conn), name, numbered("m", i, i+prefetch)...)
	}
	left := messages
	// What was lost comes when its lease is over. That is long, so that nothing else is.
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	buf := make([]*driver.Delivery, prefetch)
	take := func(s driver.Subscriber, n int) {
		t.Helper()
		for n > 0 {
			k, err := s.Receive(ctx, buf[:n])
			if err != nil {
				t.Fatalf("with %d to come: %v", left, err)
			}
			for _, d := range buf[:k] {
				if d.Attempt != 1 {
					lost++
				}
				settle(t, s, d, driver.Ack, 0)
			}
			n -= k
			left -= k
		}
	}
	for range 5 {
		s := subscribe(t, near, name, prefetch)
		take(s, prefetch)
		c := consumerOf(t, raw)
		c.retire(func(*link) bool { return true })
		signal(c.drop)
		take(s, prefetch)
		if err := s.Close(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	for s := subscribe(t, near, name, prefetch); left > 0; {
		take(s, min(prefetch, left))
	}
	return lost
}

// TestLinkIsOver: when a link that was left need not be waited for any more.
func TestLinkIsOver(t *testing.T) {
	now := time.Now()
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	const little = fenceCalm / 2
	for i, c := range []struct {
		promised int
		gone     bool
		heard    time.Time
		fence    fence
		want     bool
	}{
		{0, false, now, fence{began: now}, true},                                                     // all has come
		{1, true, now, fence{began: now}, true},                                                      // the queue is gone
		{1, false, ago(time.Minute), fence{began: now}, false},                                       // no probe yet
		{1, false, ago(time.Minute), fence{began: now, sent: now}, false},                            // no echo
		{1, false, ago(time.Minute), fence{began: now, sent: now, echoed: true}, true},               // and nothing came
		{1, false, ago(little), fence{began: now, sent: now, echoed: true}, false},                   // just now something did
		{1, false, now, fence{began: now, sent: ago(little), echoed: true}, false},                   // since the probe left, too
		{1, false, ago(little), fence{began: ago(fenceLimit), sent: now, echoed: true}, true},        // something comes all the time
		{1, false, ago(little), fence{began: ago(fenceLimit), sent: ago(little)}, false},             // or much does, slowly
		{1, false, ago(fenceLimit), fence{began: ago(fenceLimit), sent: ago(fenceLimit)}, true},      // nobody answers
		{1, false, ago(fenceLimit / 2), fence{began: ago(fenceLimit), sent: ago(fenceLimit)}, false}, // any more
	} {
		f := c.fence
		f.limit, f.calm = fenceLimit, fenceCalm
		l := &link{c: &consumer{gone: c.gone}, promised: c.promised, heard: c.heard, fence: &f}
		if l.over(now) != c.want {
			t.Errorf("%d: %v", i, !c.want)
		}
	}
}

// TestCloseWithoutAnswer: who closes or drains a subscriber of a server that says nothing
// waits as long as ctx says.
func TestCloseWithoutAnswer(t *testing.T) {
	url := testbroker.URL(t, "nats")
	declare(t, open(t, url), routing.Queue{Name: "q"})
	for name, end := range map[string]func(*testing.T, driver.Subscriber) error{
		"close": func(t *testing.T, s driver.Subscriber) error { return s.Close(shortly(t)) },
		"drain": func(t *testing.T, s driver.Subscriber) error { return s.(driver.Drainer).Drain(shortly(t)) },
	} {
		t.Run(name, func(t *testing.T) {
			proxy := testbroker.Proxy(t, url)
			s := subscribe(t, open(t, proxy.URL()), "q", 10)
			proxy.Stall(true)
			defer proxy.Stall(false)
			began := time.Now()
			err := end(t, s)
			if took := time.Since(began); err == nil || took > closeTimeout/2 {
				t.Errorf("after %v: %v", took, err)
			}
		})
	}
}

// shortly is a context that ends long before anything would by itself.
func shortly(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), fenceLimit/4)
	t.Cleanup(cancel)
	return ctx
}
