package redis

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestDurability(t *testing.T) {
	b := testbroker.Start(t, "redis")
	if err := raw(t, b.URL()).ConfigSet(ctxT(t), "appendonly", "no").Err(); err != nil {
		t.Fatal(err)
	}
	conn, _ := dial(t, b.URL())
	for _, topo := range []routing.Topology{
		{Queues: []routing.Queue{{Name: "q"}}},
		{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}}},
	} {
		if err := conn.Declare(ctxT(t), topo); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "durability=memory") {
			t.Errorf("Declare: %v", err)
		}
	}
	transient := routing.Topology{Queues: []routing.Queue{{Name: "t", Transient: true}}, Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic, Transient: true}}}
	if err := conn.Declare(ctxT(t), transient); err != nil {
		t.Errorf("transient: %v", err)
	}
	lax, _ := dial(t, b.URL()+"?durability=memory")
	declare(t, lax, "q")
	for _, set := range [][2]string{{"appendonly", "yes"}, {"maxmemory", "1gb"}, {"maxmemory-policy", "allkeys-lru"}} {
		if err := raw(t, b.URL()).ConfigSet(ctxT(t), set[0], set[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := conn.Declare(ctxT(t), routing.Topology{Queues: []routing.Queue{{Name: "evicted"}}}); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "noeviction") {
		t.Errorf("Declare with eviction: %v", err)
	}
}

func TestOpenErrors(t *testing.T) {
	good := testbroker.URL(t, "redis")
	at := strings.LastIndexByte(good, '@')
	for name, c := range map[string]struct {
		url  string
		want func(error) bool
	}{
		"wrong password": {"redis://:wrong@" + good[at+1:], func(err error) bool { return errors.Is(err, driver.ErrPermission) }},
		"refused":        {"redis://:secret@127.0.0.1:1/0", func(err error) bool { return strings.Contains(err.Error(), "refused") }},
		"unknown option": {good + "&shards=5", func(err error) bool { return strings.Contains(err.Error(), `"shards"`) }},
		"path":           {"redis://:secret@localhost/orders", func(err error) bool { return strings.Contains(err.Error(), "database") }},
		"two hosts":      {"redis://:secret@a,b/0", func(err error) bool { return strings.Contains(err.Error(), "2 hosts") }},
	} {
		u, err := driver.ParseURL(c.url)
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		_, err = Driver{}.Open(ctxT(t), u, driver.Config{OnState: func(driver.State, error) {}})
		if err == nil || !c.want(err) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

func TestServerVersion(t *testing.T) {
	for info, want := range map[string]string{
		"# Server\r\nredis_version:7.0.15\r\nredis_mode:standalone\r\n":         "Redis 7.0.15",
		"# Server\r\nredis_version:10.2.0\r\n":                                  "Redis 10.2.0",
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n": "Valkey 8.1.1",
		"redis_version:6.2.14\r\n":                                              "",
		"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:7.2.5\r\n": "",
		"redis_version:\r\n": "", "": "", "redis_version:seven\r\n": "",
	} {
		got, err := server(info)
		if got != want || (err == nil) != (want != "") || err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%q: %q, %v, want %q", info, got, err, want)
		}
	}
}

// TestNoGoroutineIsLeft: neither by a subscriber nor by a connection.
func TestNoGoroutineIsLeft(t *testing.T) {
	url := testbroker.URL(t, "redis")
	before := runtime.NumGoroutine()
	u, _ := driver.ParseURL(url)
	conn, err := Driver{}.Open(ctxT(t), u, driver.Config{Logger: nopLogger, OnState: func(driver.State, error) {}})
	if err != nil {
		t.Fatal(err)
	}
	declare(t, conn, "q")
	subscribe(t, conn, "q", 10)
	sub := subscribe(t, conn, "q", 10)
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	_ = sub.Close(ctxT(t))
	if err := conn.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for runtime.NumGoroutine() > before {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<16)
			t.Fatalf("%d goroutines before, %d after:\n%s", before, runtime.NumGoroutine(), b[:runtime.Stack(b, true)])
		}
		time.Sleep(10 * time.Millisecond)
	}
	if _, err := conn.Inspect(ctxT(t), "q"); !errors.Is(err, driver.ErrClosed) {
		t.Errorf("Inspect after Close: %v", err)
	}
}

// TestACL: the permissions that the documentation names are enough, and without
// them the error says so.
func TestACL(t *testing.T) {
	b := testbroker.Start(t, "redis")
	c := raw(t, b.URL())
	at := strings.LastIndexByte(b.URL(), '@')
	for user, rules := range map[string]string{
		"enough": "~polymq:* &polymq:* +@connection +@stream +@sortedset +@hash +@string +exists +del +unlink +time +info +publish +subscribe +fcall +function|load",
		"little": "~polymq:* +@connection +info",
	} {
		args := append([]any{"ACL", "SETUSER", user, "on", ">secret"}, anys(strings.Fields(rules))...)
		if err := c.Do(ctxT(t), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	conn, _ := dial(t, "redis://enough:secret"+b.URL()[at:])
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a"), &driver.Message{ID: "given", Body: []byte("b")}); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, conn, "q", 10)
	ds := expect(t, sub, "a", "b")
	settle(t, sub, driver.Ack, ds[0])
	if err := sub.Settle(ctxT(t), ds[1], driver.Nack, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	expect(t, sub, "b")
	if err := sub.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Purge(ctxT(t), "q"); n != 1 || err != nil {
		t.Errorf("Purge: %d, %v", n, err)
	}
	if err := conn.DeleteQueue(ctxT(t), "q", driver.DeleteOptions{IfEmpty: true}); err != nil {
		t.Error(err)
	}
	all := routing.Queue{Name: "rules", MaxPriority: 3, MaxLength: 1, MaxBytes: 10, SingleActiveConsumer: true, TTL: time.Hour, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "q", Exclusive: true}
	declareQueues(t, conn, routing.Queue{Name: "q"}, all)
	if err := publish(t, conn, "rules", text("c"), text("d")); err != nil {
		t.Fatal(err)
	}
	expect(t, subscribe(t, conn, "q", 1), "c")
	active, standby := subscribe(t, conn, "rules", 1), subscribe(t, conn, "rules", 1)
	expect(t, active, "d")
	if err := active.Close(ctxT(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, standby, "d")
	u, _ := driver.ParseURL("redis://little:secret" + b.URL()[at:])
	_, err := Driver{}.Open(ctxT(t), u, driver.Config{Logger: nopLogger, OnState: func(driver.State, error) {}})
	if !errors.Is(err, driver.ErrPermission) {
		t.Errorf("too few permissions: %v", err)
	}
}
