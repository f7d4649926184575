package redis

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestCloseAmidTwoBatches: a caller makes a flight and one of the lane's goroutines the
// next one, which waits for that. Nobody waits any more once the store is closed.
func TestCloseAmidTwoBatches(t *testing.T) {
	link := testbroker.Proxy(t, testbroker.URL(t, "redis"))
	conn, s := dial(t, link.URL())
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	link.Stall(true)
	led := make(chan error, 1)
	go func() { led <- publishCtx(context.Background(), t, conn, "q", text("led")) }()
	until(t, "the caller makes no flight", func() bool { return underWay(s) == 1 })
	const n = 200
	w := pour(t, conn, n)
	until(t, "no other flight is under way", func() bool { return underWay(s) == 2 })
	if err := s.Close(ctxT(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
	link.Stall(false)
	if err := conn.Close(ctxT(t)); err != nil {
		t.Errorf("Close: %v", err)
	}
	for range n {
		select {
		case p := <-w.c:
			if err := p.Err(); !errors.Is(err, driver.ErrUnconfirmed) && !errors.Is(err, driver.ErrClosed) {
				t.Errorf("%s: %v", p.ID, err)
			}
		case <-ctxT(t).Done():
			t.Fatal("messages without an outcome")
		}
	}
	if err := <-led; !errors.Is(err, driver.ErrUnconfirmed) && !errors.Is(err, driver.ErrClosed) {
		t.Errorf("the caller's: %v", err)
	}
}

// TestHalfACommand: behind a command of which only a part could be sent nothing is,
// for the server would take it for the rest.
func TestHalfACommand(t *testing.T) {
	for name, fail := range map[string]func(*socket){
		"a write failed": func(k *socket) {
			if k.write(make([]byte, 64<<20), 50*time.Millisecond) == nil {
				t.Fatal("all was written though nobody read")
			}
		},
		"interrupted": (*socket).interrupt,
	} {
		t.Run(name, func(t *testing.T) {
			near, far := testbroker.Pair(t)
			k := &socket{Conn: near}
			fail(k)
			go func() {
				b := make([]byte, 1<<20)
				for {
					if _, err := far.Read(b); err != nil {
						return
					}
				}
			}()
			if err := k.write([]byte("*1\r\n$4\r\nPING\r\n"), 5*time.Second); err == nil {
				t.Error("another command was sent")
			}
		})
	}
}

// TestOutcomeOfTheLastAnswer: what an earlier answer told, which did not count yet, is
// not told for a later one.
func TestOutcomeOfTheLastAnswer(t *testing.T) {
	c := &call{items: []*item{{}, {}}}
	c.answered(&answer{b: []byte(":0\r\n")})
	c.answered(&answer{b: []byte("*2\r\n:0\r\n$5\r\nERR x\r\n")})
	if c.err != nil || c.gone || c.items[0].failed == nil || c.items[1].failed != nil {
		t.Errorf("a part was refused: %v, gone %v, %v, %v", c.err, c.gone, c.items[0].failed, c.items[1].failed)
	}
	c.answered(&answer{b: []byte(":1\r\n")})
	if c.err != nil || c.gone || c.items[0].failed != nil {
		t.Errorf("all is stored: %v, gone %v, %v", c.err, c.gone, c.items[0].failed)
	}
}

// TestReplicaWhileWaiting: a server that stores a batch and is no master any more when
// it is to wait until that is safe has refused nothing.
func TestReplicaWhileWaiting(t *testing.T) {
	b, replica := testbroker.Start(t, "redis"), testbroker.Start(t, "redis")
	root := raw(t, b.URL())
	set := func(c *goredis.Client, args ...any) {
		t.Helper()
		if err := c.Do(ctxT(t), args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	host, port, err := net.SplitHostPort(root.Options().Addr)
	if err != nil {
		t.Fatal(err)
	}
	set(raw(t, replica.URL()), "CONFIG", "SET", "masterauth", root.Options().Password)
	set(raw(t, replica.URL()), "REPLICAOF", host, port)
	conn, _ := dial(t, with(b.URL(), "replicas=1"))
	declare(t, conn, "q")
	if err := publish(t, conn, "q", text("a")); err != nil {
		t.Fatal(err)
	}
	set(root, "CONFIG", "SET", "replica-read-only", "no")
	set(root, "REPLICAOF", "127.0.0.1", "1")
	ended := make(chan error, 1)
	go func() { ended <- publish(t, conn, "q", text("b")) }()
	stored := func() bool {
		keys := root.Keys(ctxT(t), "polymq:*:lanes").Val()
		return len(keys) == 1 && root.XLen(ctxT(t), strings.TrimSuffix(keys[0], ":lanes")).Val() == 2
	}
	until(t, "it is not stored", stored)
	tries := func() int64 {
		stats := root.Info(ctxT(t), "commandstats").Val()
		_, n, _ := strings.Cut(field(stats, "cmdstat_wait"), "failed_calls=")
		failed, _ := strconv.ParseInt(n, 10, 64)
		return failed
	}
	until(t, "it is not tried again", func() bool { return tries() > 1 || len(ended) > 0 })
	set(root, "REPLICAOF", "NO", "ONE")
	if err := <-ended; err != nil {
		t.Error(err)
	}
	sub := subscribe(t, conn, "q", 10)
	settle(t, sub, driver.Ack, expect(t, sub, "a", "b")...)
	info(t, conn, "q", driver.QueueInfo{Consumers: 1})
}
