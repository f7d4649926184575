package redis

import (
	"net"
	"slices"
	"strconv"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// slotMove moves the slot of a key to another master of a cluster.
type slotMove struct {
	t        testing.TB
	slot     int
	from, to *goredis.Client
	ids      map[*goredis.Client]string // of the masters
}

func newSlotMove(t testing.TB, c *testbroker.Cluster, s *store, key string) *slotMove {
	t.Helper()
	m := &slotMove{t: t, slot: slotOf(key), ids: map[*goredis.Client]string{}}
	holder, err := s.at(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range c.Nodes {
		if !isMaster(t, n) {
			continue
		}
		client := raw(t, n.URL())
		m.ids[client] = m.do(client, "CLUSTER", "MYID").(string)
		if client.Options().Addr == holder.addr {
			m.from = client
		} else {
			m.to = client
		}
	}
	return m
}

func (m *slotMove) do(c *goredis.Client, args ...any) any {
	m.t.Helper()
	v, err := c.Do(ctxT(m.t), args...).Result()
	if err != nil {
		m.t.Fatalf("%v: %v", args, err)
	}
	return v
}

// begin leaves the keys that are there where they are; others cannot be made any more.
func (m *slotMove) begin() {
	m.t.Helper()
	m.do(m.to, "CLUSTER", "SETSLOT", m.slot, "IMPORTING", m.ids[m.from])
	m.do(m.from, "CLUSTER", "SETSLOT", m.slot, "MIGRATING", m.ids[m.to])
}

func (m *slotMove) end() {
	m.t.Helper()
	o := m.to.Options()
	host, port, err := net.SplitHostPort(o.Addr)
	if err != nil {
		m.t.Fatal(err)
	}
	args := []any{"MIGRATE", host, port, "", 0, 5000}
	if o.Password != "" {
		args = append(args, "AUTH", o.Password)
	}
	args = append(args, "KEYS")
	m.do(m.from, append(args, m.do(m.from, "CLUSTER", "GETKEYSINSLOT", m.slot, 1000).([]any)...)...)
	m.do(m.to, "CLUSTER", "SETSLOT", m.slot, "NODE", m.ids[m.to])
	for c := range m.ids {
		m.do(c, "CLUSTER", "SETSLOT", m.slot, "NODE", m.ids[m.to])
	}
}

// halfway calls a function while the slot is moved: it ends half way, and the caller
// is to call it again.
func (x *script) halfway(c *testbroker.Cluster, fn string, args ...any) any {
	x.t.Helper()
	m := newSlotMove(x.t, c, x.s, x.h.key)
	m.begin()
	if _, err := m.from.Do(ctxT(x.t), append([]any{"FCALL", fn, "1", x.h.key}, args...)...).Result(); !partly(reply(err)) {
		x.t.Fatalf("%s in a slot that is moved: %v", fn, err)
	}
	m.end()
	return x.call(fn, args...)
}

// TestMovedSlots: whatever is under way while a slot is moved to another master is done
// when it has moved.
func TestMovedSlots(t *testing.T) {
	c := testbroker.StartCluster(t, "redis+cluster")
	single := routing.Queue{SingleActiveConsumer: true}
	t.Run("delayed", func(t *testing.T) {
		x := newScriptAt(t, c.URL(), routing.Queue{})
		x.publish("a")
		x.join("one")
		x.fetch("one", 1)
		x.halfway(c, x.h.fns.settle, "one", "60000", "0", x.held("one")[0], "1", "50")
		until(t, "it never came again", func() bool { return x.fetch("one", 1) == "a:2" })
	})
	t.Run("active", func(t *testing.T) {
		x := newScriptAt(t, c.URL(), single)
		x.join("one")
		x.halfway(c, x.h.fns.leave, "one")
		x.join("two")
		x.publish("a")
		x.expect("the next active one", x.fetch("two", 1), "a:1")
	})
	t.Run("renamed", func(t *testing.T) {
		x := newScriptAt(t, c.URL(), single)
		x.join("one")
		if v := x.halfway(c, x.h.fns.rename, "one", "two", "60000"); v != int64(1) {
			t.Errorf("rename: %v", v)
		}
		x.publish("a")
		x.expect("under the next name", x.fetch("two", 1), "a:1")
	})
	t.Run("waiting", func(t *testing.T) {
		conn, s := dial(t, c.URL())
		declare(t, conn, "q")
		sub := subscribe(t, conn, "q", 10)
		if err := publish(t, conn, "q", text("a")); err != nil {
			t.Fatal(err)
		}
		held := expect(t, sub, "a")
		m := newSlotMove(t, c, s, onlyConsumer(t, s).key)
		waiting(t, m.from)
		m.begin()
		m.end()
		if err := publish(t, conn, "q", text("b")); err != nil {
			t.Fatal(err)
		}
		settle(t, sub, driver.Ack, slices.Concat(held, expect(t, sub, "b"))...)
		info(t, conn, "q", driver.QueueInfo{Consumers: 1})
	})
}

// onlyConsumer is the one that a store has.
func onlyConsumer(t testing.TB, s *store) (only *consumer) {
	t.Helper()
	s.consumers.Range(func(c, _ any) bool {
		only = c.(*consumer)
		return true
	})
	if only == nil {
		t.Fatal("nobody consumes")
	}
	return only
}

// waiting waits until somebody waits at the server, which is to be the test's own.
func waiting(t testing.TB, c *goredis.Client) {
	t.Helper()
	until(t, "nobody waits", func() bool {
		n, err := strconv.Atoi(field(c.Info(ctxT(t), "clients").Val(), "blocked_clients"))
		return err == nil && n > 0
	})
}
