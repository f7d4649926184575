package amqp

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// nacking is the way to a broker whose queues have no leader while it is set:
// the broker's acks arrive as nacks.
type nacking struct {
	atomic.Bool
	acks atomic.Int64 // that became nacks
	url  string
}

func nackingProxy(t *testing.T, broker string) *nacking {
	n := &nacking{}
	n.url = throughFrames(t, broker, func(method uint32, frame []byte) bool {
		if method == basicAck && n.Load() {
			binary.BigEndian.PutUint32(frame[frameHead:], basicNack)
			n.acks.Add(1)
		}
		return true
	})
	return n
}

// age makes the publishing connection older than a queue without a leader is
// likely on.
func age(c *Conn) {
	c.out.mu.Lock()
	c.out.session.connected = time.Now().Add(-time.Hour)
	c.out.mu.Unlock()
}

// TestNackWithoutLeader: a nack is a refusal only where the queue refuses.
func TestNackWithoutLeader(t *testing.T) {
	t.Parallel()
	broker := testbroker.URL(t, "amqp")
	other := openURL(t, broker)
	check(t, other.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
		Queues: []routing.Queue{
			{Name: "q"}, {Name: "classic", Type: typeClassic}, {Name: "safe", DeadLetterExchange: "x"}, {Name: "drops", MaxLength: 100},
			{Name: "bounded", MaxLength: 100, Overflow: routing.RejectPublish}, {Name: "quorum", MaxBytes: 1e6, Type: typeQuorum, Overflow: routing.RejectPublish},
		},
		Bindings: []routing.Binding{{Exchange: "x", Queue: "q"}},
	}))
	n := nackingProxy(t, broker)
	fresh := func(managed bool) *Conn {
		t.Helper()
		c := openURL(t, n.url)
		check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q", Delay: time.Millisecond})) // the levels stand
		if !managed {
			c.management = nil
		}
		age(c)
		return c
	}
	nacked := func(c *Conn, exchange, queue string, m driver.Message, want error) {
		t.Helper()
		p, err := c.Publisher(ctxOf(t), driver.PublisherConfig{Exchange: exchange, Queue: queue})
		check(t, err)
		if queue != "" {
			check(t, publish(t, p, m))
		}
		n.Store(true)
		defer n.Store(false)
		before := n.acks.Load()
		err = publish(t, p, m)
		if !errors.Is(err, want) || errors.Is(err, driver.ErrRejected) && errors.Is(err, driver.ErrUnconfirmed) {
			t.Errorf("%q, %q, %q: %v, want %v", exchange, m.Key, queue, err, want)
		}
		if n.acks.Load() == before {
			t.Errorf("%q, %q, %q: nothing was nacked", exchange, m.Key, queue)
		}
	}
	// tried is a message that is sent again for as long as that lasts.
	tried := func(c *Conn, exchange, queue string, m driver.Message) {
		t.Helper()
		p, err := c.Publisher(ctxOf(t), driver.PublisherConfig{Exchange: exchange, Queue: queue})
		check(t, err)
		if queue != "" {
			check(t, publish(t, p, m))
		}
		n.Store(true)
		defer n.Store(false)
		before := n.acks.Load()
		x := publishing(m)
		p.Publish(ctxOf(t), []*driver.Publishing{x}, true)
		until(t, "it is tried again", func() bool { return n.acks.Load() >= before+3 })
		if x.Resolved() {
			t.Errorf("%q, %q, %q: %v before the queue had a leader", exchange, m.Key, queue, x.Err())
		}
		n.Store(false)
		if err := wait(t, x); err != nil {
			t.Errorf("%q, %q, %q: %v", exchange, m.Key, queue, err)
		}
	}
	for _, managed := range []bool{true, false} {
		c := fresh(managed)
		for range 2 {
			for _, key := range []string{"q", "classic", "safe", "drops"} {
				tried(c, "", "", driver.Message{Key: key})
			}
			for _, key := range []string{"bounded", "quorum"} {
				nacked(c, "", "", driver.Message{Key: key}, driver.ErrRejected)
			}
		}
		tried(c, "", "q", driver.Message{})
		nacked(c, "", "bounded", driver.Message{}, driver.ErrRejected)
		// The levels refuse nothing.
		tried(c, "", "", driver.Message{Key: "bounded", Delay: time.Millisecond})
		if managed {
			tried(c, "x", "", driver.Message{}) // nothing that refuses is bound to it
		} else {
			nacked(c, "x", "", driver.Message{}, driver.ErrRejected) // it may be
		}
	}
	// A queue by itself, seen by its own declaration.
	c := fresh(false)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "bounded", MaxLength: 100, Overflow: routing.RejectPublish}}}))
	nacked(c, "", "", driver.Message{Key: "bounded"}, driver.ErrRejected)
	check(t, c.DeleteQueue(ctxOf(t), "bounded", driver.DeleteOptions{}))
	declare(t, c, routing.Queue{Name: "bounded"})
	tried(c, "", "", driver.Message{Key: "bounded"})
	// What leads from the exchange is known by the management API only.
	check(t, c.DeleteQueue(ctxOf(t), "quorum", driver.DeleteOptions{}))
	tried(fresh(true), "x", "", driver.Message{})
	nacked(fresh(false), "x", "", driver.Message{}, driver.ErrRejected)
	young := openURL(t, n.url)
	young.management = nil
	tried(young, "x", "", driver.Message{})
	u, err := url.Parse(broker)
	check(t, err)
	manage(t, u, "/api/policies/"+u.Path[1:]+"/p", `{"pattern":"^q$","definition":{"max-length":100,"overflow":"reject-publish"},"apply-to":"queues"}`)
	c = fresh(true)
	until(t, "the policy is in force", func() bool {
		k, err := c.kindOf(ctxOf(t), "q")
		return err == nil && k.refuses
	})
	nacked(c, "", "", driver.Message{Key: "q"}, driver.ErrRejected)
	nacked(c, "x", "", driver.Message{}, driver.ErrRejected)
}

// TestCloseEndsDoubts: Close leaves nothing pending of which it is still being
// asked whether it was refused.
func TestCloseEndsDoubts(t *testing.T) {
	broker := testbroker.URL(t, "amqp")
	declare(t, openURL(t, broker), routing.Queue{Name: "q"})
	n := nackingProxy(t, broker)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer silent.Close()
	c := openURL(t, n.url)
	c.management.bases = []string{"http://" + silent.Addr().String()}
	p := publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{Key: "q"}))
	age(c)
	n.Store(true)
	x := publishing(driver.Message{Key: "q"})
	p.Publish(ctxOf(t), []*driver.Publishing{x}, false)
	until(t, "it is in doubt", func() bool {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return len(c.out.nacks.doubts) == 1
	})
	check(t, p.Close(ctxOf(t)))
	if !x.Resolved() || !errors.Is(x.Err(), driver.ErrUnconfirmed) {
		t.Errorf("after Close: resolved %v, %v", x.Resolved(), x.Err())
	}
}

// TestDeclaredRefusalEnds: a queue that was declared may have ended by itself, or
// by another's deletion.
func TestDeclaredRefusalEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusals
		r.declared("q", true)
		r.learned("q", refusal{until: time.Now().Add(refusalTime)}) // asked before it was declared
		for _, target := range []string{"q", anyQueue} {
			if x, known := r.of(target, true); !known || !x.yes {
				t.Errorf("%q: %+v, %v", target, x, known)
			}
		}
		time.Sleep(declaredTime + 1)
		for _, target := range []string{"q", anyQueue} {
			if x, known := r.of(target, true); known {
				t.Errorf("%q, when the declaration is old: %+v", target, x)
			}
		}
		r.learned("q", refusal{until: time.Now().Add(refusalTime)})
		if x, known := r.of("q", true); !known || x.yes {
			t.Errorf("asked: %+v, %v", x, known)
		}
		for i := range 20 {
			for k := range manyRefusals {
				r.declared(fmt.Sprint(i, " ", k), true)
			}
			time.Sleep(declaredTime + 1)
		}
		if n := len(r.queues); n > 2*manyRefusals {
			t.Errorf("%d queues are remembered", n)
		}
	})
}

// TestRefusalBehindAPlugin: which way a message takes through an exchange of a
// plugin only RabbitMQ knows; that a queue there refuses it is heard all the same.
func TestRefusalBehindAPlugin(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "hash", Kind: routing.ConsistentHash}},
		Queues:    []routing.Queue{{Name: "full", Type: routing.Classic, MaxLength: 1, Overflow: routing.RejectPublish}, {Name: "free"}},
		Bindings:  []routing.Binding{{Exchange: "hash", Queue: "full", Key: "1"}, {Exchange: "hash", Queue: "free", Key: "1"}},
	}))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "full"}))
	var batch []*driver.Publishing
	for i := range 40 {
		batch = append(batch, publishing(driver.Message{Key: fmt.Sprint(i)}))
	}
	publisherOf(t, c, "hash").Publish(ctxOf(t), batch, true)
	refused := 0
	for _, p := range batch {
		if err := wait(t, p); err != nil && !errors.Is(err, driver.ErrRejected) {
			t.Error(err)
		} else if err != nil {
			refused++
		}
	}
	if refused == 0 || refused == len(batch) {
		t.Errorf("%d of %d were refused", refused, len(batch))
	}
}
