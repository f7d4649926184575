package redis

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestSlotOf(t *testing.T) {
	for key, want := range map[string]int{
		"polymq:{default}": slotOf("default"), "polymq:{default}:version": slotOf("default"),
		"123456789": 0x31c3, "{}a": slotOf("{}a"), "foo{bar}{zap}": slotOf("bar"), "": 0,
	} {
		if got := slotOf(key); got != want {
			t.Errorf("%q: slot %d, want %d", key, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	a, b := &node{addr: "a"}, &node{addr: "b"}
	some := table{{0, 5, a}, {100, 8000, b}, {8001, 8001, a}, {8002, slots - 1, b}}
	if nodes := some.nodes(); len(nodes) != 2 || nodes[0] != a || nodes[1] != b {
		t.Errorf("nodes: %v", nodes)
	}
	for slot, want := range map[int]*node{0: a, 5: a, 6: nil, 99: nil, 100: b, 8000: b, 8001: a, 8002: b, slots - 1: b} {
		if got, err := some.holds(slot); got != want || (err == nil) != (want != nil) {
			t.Errorf("slot %d: %v, %v", slot, got, err)
		}
	}
	if _, err := (table{}).holds(7); !errors.Is(err, errNowhere) {
		t.Errorf("of no servers: %v", err)
	}
}

func TestClusterURLs(t *testing.T) {
	good := testbroker.URL(t, "redis")
	host := good[strings.LastIndexByte(good, '@')+1:]
	host = host[:strings.IndexByte(host, '/')]
	password := strings.TrimPrefix(good[:strings.LastIndexByte(good, '@')], "redis://:")
	for name, c := range map[string]struct{ url, want string }{
		"no master":        {"redis+sentinel://:secret@" + host, "option master"},
		"master elsewhere": {"redis+cluster://:secret@" + host + "?master=hidden", `unknown URL option "master"`},
		"a database":       {"redis+cluster://:secret@" + host + "/3", "database"},
		"no cluster":       {"redis+cluster://:" + password + "@" + host, "no +cluster"},
		"no sentinel":      {"redis+sentinel://:" + password + "@" + host + "?master=hidden&sentinel-password=" + password, "is no sentinel"},
		"sentinel refuses": {"redis+sentinel://:" + password + "@" + host + "?master=hidden&sentinel-password=secret", "sentinel-password"},
		"nobody":           {"redis+sentinel://:secret@127.0.0.1:1,127.0.0.1:2?master=hidden", "127.0.0.1:1, 127.0.0.1:2"},
		"replicas":         {"redis://:secret@" + host + "?replicas=-1", "replicas"},
	} {
		u, err := driver.ParseURL(c.url)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Driver{}.Open(ctxT(t), u, driver.Config{OnState: func(driver.State, error) {}})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		} else if s := err.Error(); strings.Contains(s, "secret") || strings.Contains(s, "hidden") || strings.Contains(s, password) {
			t.Errorf("%s: an option's value is in the error: %v", name, err)
		}
	}
}

// TestWrongScheme: a member of a cluster is not taken for a server that holds
// everything.
func TestWrongScheme(t *testing.T) {
	c := testbroker.StartCluster(t, "redis+cluster")
	for _, url := range []string{c.Nodes[0].URL(), c.Nodes[5].URL()} {
		u, err := driver.ParseURL(url)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Driver{}.Open(ctxT(t), u, driver.Config{OnState: func(driver.State, error) {}})
		if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "redis+cluster") {
			t.Errorf("Open: %v", err)
		}
	}
}

// TestTopologyOnReplicas: a change that no replica has is not reported, nor read
// by whoever made it.
func TestTopologyOnReplicas(t *testing.T) {
	_, s := dial(t, with(testbroker.URL(t, "redis"), "replicas=1"))
	short := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), safeWait+time.Second)
		t.Cleanup(cancel)
		return ctx
	}
	v, err := s.LoadTopology(ctxT(t), emulate.Version{})
	if err != nil {
		t.Fatal(err)
	}
	// It says what it was told by the last try that had an answer, so there must be one.
	ctx, cancel := context.WithTimeout(context.Background(), safeWait+10*time.Second)
	defer cancel()
	if err := s.RenewLease(ctx, "one", v.Version); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "0 of 1 replicas") {
		t.Errorf("RenewLease: %v", err)
	}
	if _, err := s.ApplyTopology(short(), v.Version, []emulate.Element{{Name: "e", Data: []byte(`{"v":1,"binding":{}}`)}}); !errors.Is(err, driver.ErrUnconfirmed) {
		t.Errorf("ApplyTopology: %v", err)
	}
	if got, err := s.LoadTopology(short(), v.Version); err == nil {
		t.Errorf("what no replica has was read: %+v", got)
	}
	q := emulate.Queue{Incarnation: "q1"}
	s.Attach(&q)
	if err := s.CreateQueue(short(), &q); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("CreateQueue: %v", err)
	}
}

// TestReplicas: a message that too few replicas have is unconfirmed, and stored
// once however often it is tried.
func TestReplicas(t *testing.T) {
	c := testbroker.StartCluster(t, "redis+sentinel")
	conn, _ := dial(t, with(c.URL(), "replicas=2"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	leader := c.Leader()
	replica := c.Nodes[0]
	if replica == leader {
		replica = c.Nodes[1]
	}
	replica.Pause()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if err := publishCtx(ctx, t, conn, "q", text("b")); !errors.Is(err, driver.ErrUnconfirmed) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with a replica that hangs: %v", err)
	}
	// One that waits until the replica is back is confirmed.
	done := make(chan error, 1)
	go func() { done <- publishCtx(ctxT(t), t, conn, "q", text("c")) }()
	select {
	case err := <-done:
		t.Errorf("confirmed before the replica was back: %v", err)
	case <-time.After(2 * safeWait): // it was tried more than once by then
	}
	replica.Resume()
	if err := <-done; err != nil {
		t.Error(err)
	}
	sub := subscribe(t, conn, "q", 10)
	settle(t, sub, driver.Ack, expect(t, sub, "a", "b", "c")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}

// TestFsync: durability=fsync works, or Open says which server it needs.
func TestFsync(t *testing.T) {
	b := testbroker.Start(t, "redis")
	server, err := raw(t, b.URL()).Info(ctxT(t), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	open := func() (*store, error) {
		u, err := driver.ParseURL(b.URL() + "?durability=fsync")
		if err != nil {
			t.Fatal(err)
		}
		cfg, err := parse(u)
		if err != nil {
			t.Fatal(err)
		}
		return open(ctxT(t), cfg, nopLogger, func(driver.State, error) {})
	}
	if atLeast(server, "redis_version", 7, 2) {
		conn, _ := dial(t, b.URL()+"?durability=fsync")
		declare(t, conn, "q")
		if err := publish(t, conn, "q", text("a"), text("b")); err != nil {
			t.Error(err)
		}
		if err := raw(t, b.URL()).ConfigSet(ctxT(t), "appendonly", "no").Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := open(); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "appendonly") {
			t.Errorf("Open without a file: %v", err)
		}
		return
	}
	if _, err := open(); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "7.2") {
		t.Errorf("Open: %v", err)
	}
}
