package redis

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// with adds options to a URL.
func with(url, options string) string {
	if strings.Contains(url, "?") {
		return url + "&" + options
	}
	return url + "?" + options
}

var clusters = []string{"redis+sentinel", "redis+cluster"}

func isMaster(t testing.TB, n *testbroker.Broker) bool {
	t.Helper()
	info, err := raw(t, n.URL()).Info(ctxT(t), "replication").Result()
	return err == nil && field(info, "role") == "master"
}

func replicas(t testing.TB, c *testbroker.Cluster) []*testbroker.Broker {
	t.Helper()
	var all []*testbroker.Broker
	for _, n := range c.Nodes {
		if !isMaster(t, n) {
			all = append(all, n)
		}
	}
	return all
}

// promoted waits until one of those that were replicas is a master.
func promoted(t testing.TB, replicas []*testbroker.Broker) time.Time {
	t.Helper()
	for ctx := ctxT(t); ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
		for _, n := range replicas {
			if isMaster(t, n) {
				return time.Now()
			}
		}
	}
	t.Fatal("nobody took over")
	return time.Time{}
}

// load is a publisher and a subscriber for each of some queues.
type load struct {
	t    *testing.T
	ctx  context.Context
	conn driver.Conn
	warm chan struct{} // from each publisher, once it has published some
	over chan struct{} // closed: publish some more, then end
	wg   sync.WaitGroup

	mu      sync.Mutex
	sent    []string
	came    map[string]int
	idle    time.Duration // the longest that a publish took to be confirmed
	resumed time.Time     // when it was
}

func newLoad(t *testing.T, conn driver.Conn, queues ...string) *load {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	l := &load{t: t, ctx: ctx, conn: conn, warm: make(chan struct{}, len(queues)), over: make(chan struct{}), came: map[string]int{}}
	declare(t, conn, queues...)
	for _, q := range queues {
		sub := subscribe(t, conn, q, 10)
		l.wg.Go(func() { l.publish(q) })
		l.wg.Go(func() { l.consume(sub) })
	}
	for range queues {
		<-l.warm
	}
	return l
}

func (l *load) publish(q string) {
	left := 50
	for i := 0; left > 0; i++ {
		body, begin := fmt.Sprint(q, " ", i), time.Now()
		if err := publishCtx(l.ctx, l.t, l.conn, q, text(body)); err != nil {
			l.t.Errorf("%s: %v", body, err)
			break
		}
		l.mu.Lock()
		l.sent = append(l.sent, body)
		if took := time.Since(begin); took > l.idle {
			l.idle, l.resumed = took, time.Now()
		}
		l.mu.Unlock()
		if i == 100 {
			l.warm <- struct{}{}
		}
		select {
		case <-l.over:
			left--
		default:
		}
	}
	if err := publishCtx(l.ctx, l.t, l.conn, q, text("end")); err != nil {
		l.t.Error(err)
	}
	select {
	case l.warm <- struct{}{}:
	default:
	}
}

func (l *load) consume(sub driver.Subscriber) {
	buf := make([]*driver.Delivery, 10)
	for {
		n, err := sub.Receive(l.ctx, buf)
		if err != nil {
			l.t.Errorf("Receive: %v", err)
			return
		}
		for _, d := range buf[:n] {
			_ = sub.Settle(l.ctx, d, driver.Ack, 0) // what was lost comes again
			body := string(d.Message.Body)
			if body == "end" {
				return
			}
			l.mu.Lock()
			l.came[body]++
			l.mu.Unlock()
		}
	}
}

// end waits for all, and wants whatever was confirmed to have come.
func (l *load) end() {
	close(l.over)
	l.wg.Wait()
	again := 0
	for _, body := range l.sent {
		if l.came[body] == 0 {
			l.t.Errorf("%q was confirmed and never came", body)
		}
		again += max(l.came[body]-1, 0)
	}
	l.t.Logf("%d were confirmed, one of them after %v; %d deliveries were repeated", len(l.sent), l.idle.Round(time.Millisecond), again)
}

// TestLeaderLostUnderLoad: a leader is killed, or hangs. Whatever was confirmed
// arrives, and publishers and subscribers go on by themselves.
func TestLeaderLostUnderLoad(t *testing.T) {
	for _, scheme := range clusters {
		t.Run(scheme, func(t *testing.T) {
			c := testbroker.StartCluster(t, scheme)
			conn, _ := dial(t, with(c.URL(), "lease=2s&replicas=1"))
			for _, fault := range []struct {
				name      string
				lose, end func(*testbroker.Broker)
			}{
				{"killed", (*testbroker.Broker).Kill, (*testbroker.Broker).Start},
				{"hangs", (*testbroker.Broker).Pause, (*testbroker.Broker).Resume},
			} {
				t.Run(fault.name, func(t *testing.T) {
					l := newLoad(t, conn, fault.name+"0", fault.name+"1", fault.name+"2", fault.name+"3")
					others, leader := replicas(t, c), c.Leader()
					fault.lose(leader)
					at := promoted(t, others)
					// It comes back as a replica; in a cluster it is the only one that
					// could have what is published now.
					fault.end(leader)
					l.end()
					t.Logf("the first publish was confirmed %v after another led", l.resumed.Sub(at).Round(time.Millisecond))
				})
			}
		})
	}
}

// TestLeasesAfterFailover: whoever took over may not know of every lease, and
// says so; the version of the topology is what it was.
func TestLeasesAfterFailover(t *testing.T) {
	c := testbroker.StartCluster(t, "redis+sentinel")
	_, s := dial(t, with(c.URL(), "replicas=1"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // as a failover can take long
	defer cancel()
	topo, err := s.LoadTopology(ctx, emulate.Version{})
	if err != nil {
		t.Fatal(err)
	}
	v, err := s.ApplyTopology(ctx, topo.Version, []emulate.Element{{Name: "e", Data: []byte(`{"v":1,"binding":{}}`)}})
	if err != nil {
		t.Fatal(err)
	}
	const settled = 5 * time.Second // so that no server's own start is what is seen
	for {
		_, restarted, err := s.Leases(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if restarted > settled {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if err := s.RenewLease(ctx, "one", v); err != nil {
		t.Fatal(err)
	}
	leader, begin := c.Leader(), time.Now()
	leader.Kill()
	leases, restarted, err := s.Leases(ctx)
	// The server counts whole milliseconds; its own start is further back than the kill.
	if err != nil || restarted < 0 || restarted > time.Since(begin)+time.Millisecond {
		t.Errorf("restarted %v ago: %v", restarted, err)
	}
	if len(leases) != 1 || leases[0] != (emulate.Lease{Client: "one", Version: v}) {
		t.Errorf("leases: %v, want one of %v", leases, v)
	}
	if got, err := s.LoadTopology(ctx, v); err != nil || got.Full || got.Version != v || len(got.Elements) > 0 {
		t.Errorf("since the version before: %+v, %v", got, err)
	}
}

// TestRefusedAfterFailover: what a leader was sent that hung and was replaced may be
// stored, whatever the new one says of it.
func TestRefusedAfterFailover(t *testing.T) {
	c := testbroker.StartCluster(t, "redis+sentinel")
	conn, _ := dial(t, with(c.URL(), "replicas=1"))
	full := routing.Queue{Name: "q", MaxLength: 1, Overflow: routing.RejectPublish}
	if err := conn.Declare(ctxT(t), routing.Topology{Queues: []routing.Queue{full}}); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, conn, "q", text("b")); !errors.Is(err, driver.ErrRejected) || errors.Is(err, driver.ErrUnconfirmed) {
		t.Fatalf("before: %v", err)
	}
	leader := c.Leader()
	leader.Pause()
	defer leader.Resume()
	if err := publish(t, conn, "q", text("c")); !errors.Is(err, driver.ErrRejected) || !errors.Is(err, driver.ErrUnconfirmed) {
		t.Errorf("after: %v", err)
	}
}

// TestHungLeader: a subscriber that waits at a leader that hangs goes on at the next
// one, and holds up nobody else.
func TestHungLeader(t *testing.T) {
	c := testbroker.StartCluster(t, "redis+sentinel")
	conn, _ := dial(t, c.URL())
	declare(t, conn, "q")
	sub := subscribe(t, conn, "q", 10)
	if err := publish(t, conn, "q", text("before")); err != nil {
		t.Fatal(err)
	}
	settle(t, sub, driver.Ack, expect(t, sub, "before")...)
	leader := c.Leader()
	leader.Pause()
	defer leader.Resume()
	if err := publish(t, conn, "q", text("after")); err != nil {
		t.Fatal(err)
	}
	for {
		d := receive(t, sub)
		settle(t, sub, driver.Ack, d)
		if string(d.Message.Body) == "after" {
			return
		}
	}
}
