package amqp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// wipe removes what was declared, as a broker does that loses its disk.
func wipe(t *testing.T, admin *Conn, top routing.Topology) {
	t.Helper()
	for _, q := range top.Queues {
		check(t, admin.DeleteQueue(ctxOf(t), q.Name, driver.DeleteOptions{}))
	}
	for _, x := range top.Exchanges {
		check(t, admin.DeleteExchange(ctxOf(t), x.Name, driver.DeleteOptions{}))
	}
}

func standing(t *testing.T, admin *Conn, top routing.Topology) func() bool {
	return func() bool { return admin.Verify(ctxOf(t), top) == nil }
}

// lose ends a connection of which others do not know yet that hook is to restore it.
func lose(l *link, hook func(*amqp091.Connection, *wire)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.restore = hook
	l.wire.cut()
}

// halfway calls c.restore, on the goroutine that dials, and f as soon as it has made what
// comes before "b": for an exchange of a kind that it does not know it connects, and so
// comes into the trap.
func halfway(t *testing.T, c *Conn, conn *amqp091.Connection, w *wire, f func()) {
	trap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Error(err)
		return
	}
	c.declared.Add(routing.Topology{Exchanges: []routing.Exchange{{Name: "b", Kind: "x-polymq-none", Transient: true}}})
	c.tasks.Go(func() {
		f := sync.OnceFunc(f)
		for {
			nc, err := trap.Accept()
			if err != nil {
				return
			}
			c.declared.DeleteExchange("b") // the next one to restore does not come here
			f()
			nc.Close()
		}
	})
	addrs := c.settings.addrs
	c.settings.addrs = []string{trap.Addr().String()}
	c.restore(conn, w)
	c.settings.addrs = addrs
	trap.Close()
}

// fanout leads from the exchange a to some queues.
func fanout() (top routing.Topology) {
	top.Exchanges = []routing.Exchange{{Name: "a", Kind: routing.Fanout}}
	for i := range 5 {
		name := fmt.Sprint("q", i)
		top.Queues = append(top.Queues, routing.Queue{Name: name})
		top.Bindings = append(top.Bindings, bindingOf("a", name, ""))
	}
	return top
}

// TestRestoreInTurn: a connection that comes back while the other one makes all anew
// is not used before that is done.
func TestRestoreInTurn(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	admin, c := openURL(t, url), openURL(t, url)
	top := fanout()
	check(t, c.Declare(ctxOf(t), top))
	p := publisherOf(t, c, "a")
	wipe(t, admin, top)
	second, begun, used := make(chan struct{}), make(chan struct{}), make(chan struct{})
	lose(c.publish, func(conn *amqp091.Connection, w *wire) {
		close(second)
		<-begun
		c.restore(conn, w)
		close(used)
	})
	<-second
	lose(c.consume, func(conn *amqp091.Connection, w *wire) {
		halfway(t, c, conn, w, func() {
			until(t, "a is made anew", standing(t, admin, routing.Topology{Exchanges: top.Exchanges}))
			close(begun)
			select {
			case <-used:
				t.Error("the other connection does not wait")
			case <-time.After(200 * time.Millisecond): // it does not have to try sooner
			}
		})
	})
	check(t, publish(t, p, driver.Message{}))
	for _, q := range top.Queues {
		if n, err := admin.Purge(ctxOf(t), q.Name); n != 1 || err != nil {
			t.Errorf("%s has %d messages, %v", q.Name, n, err)
		}
	}
}

// TestRestoreInterrupted: what a connection did not come to make anew, since it was
// lost meanwhile, the next one makes.
func TestRestoreInterrupted(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	admin, c := openURL(t, url), openURL(t, url)
	top := fanout()
	check(t, c.Declare(ctxOf(t), top))
	wipe(t, admin, top)
	back := make(chan struct{})
	lose(c.consume, func(conn *amqp091.Connection, w *wire) {
		halfway(t, c, conn, w, func() {
			until(t, "a is made anew", standing(t, admin, routing.Topology{Exchanges: top.Exchanges}))
			w.cut()
		})
		c.consume.restore = func(conn *amqp091.Connection, w *wire) { c.restore(conn, w); close(back) }
	})
	<-back
	check(t, admin.Verify(ctxOf(t), top))
}

// TestRestoreBesideOthers: who shares an exchange and was back first hides from nobody
// that the broker has lost all; but a queue that is young is not made anew: a broker
// that was killed may have half forgotten it.
func TestRestoreBesideOthers(t *testing.T) {
	for _, old := range []bool{true, false} {
		url := testbroker.URL(t, "amqp")
		admin, c := openURL(t, url), openURL(t, url)
		if old {
			c.restoring.mu.Lock()
			c.restoring.age = 0
			c.restoring.mu.Unlock()
		}
		shared := routing.Topology{Exchanges: []routing.Exchange{{Name: "events", Kind: routing.Fanout}}}
		top := shared
		top.Queues, top.Bindings = []routing.Queue{{Name: "billing"}}, []routing.Binding{bindingOf("events", "billing", "")}
		check(t, c.Declare(ctxOf(t), top))
		wipe(t, admin, top)
		check(t, admin.Declare(ctxOf(t), shared))
		back := make(chan struct{})
		lose(c.publish, func(conn *amqp091.Connection, w *wire) { c.restore(conn, w); close(back) })
		<-back
		if err := publish(t, publisherOf(t, admin, "events"), driver.Message{}); old != (err == nil) {
			t.Errorf("old: %v: published to the queue: %v", old, err)
		}
	}
}

// TestSettled: what was young when a connection was lost, or was declared across a loss,
// stays doubtful until it is declared again.
func TestSettled(t *testing.T) {
	r := restoring{age: time.Minute}
	now := time.Now()
	qs := func(name string) []routing.Queue { return []routing.Queue{{Name: name}} }
	r.declared(qs("old"), now.Add(-time.Hour))
	r.declared(qs("young"), now)
	r.declared([]routing.Queue{{Name: "transient", Transient: true}, {Name: "exclusive", Exclusive: true}}, now.Add(-time.Hour))
	if r.settled(qs("old")) {
		t.Error("settled without a loss")
	}
	r.lose()
	r.declared(qs("across"), now)
	r.age = 0
	r.lose()
	for name, want := range map[string]bool{"old": true, "young": false, "across": false, "transient": false, "exclusive": false} {
		if r.settled(qs(name)) != want {
			t.Errorf("settled(%s) is not %v", name, want)
		}
	}
	r.declared(qs("young"), time.Now())
	r.deleted("old")
	time.Sleep(time.Millisecond) // else the clock may not have moved
	r.lose()
	if !r.settled(qs("young")) || r.settled(qs("old")) {
		t.Error("declared again it is not settled, or deleted it is")
	}
}

// TestBindingsLater: bindings from an exchange that another program makes anew later are
// made then, but for those that were removed meanwhile; the log says that they lack.
func TestBindingsLater(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	log := &countingLog{}
	admin, c := openURL(t, url), openLogged(t, url, log)
	x := routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}}}
	check(t, admin.Declare(ctxOf(t), x))
	top := routing.Topology{
		Queues: []routing.Queue{{Name: "durable"}, {Name: "mine", Exclusive: true}},
		Bindings: []routing.Binding{
			bindingOf("x", "durable", "a removed one"), bindingOf("x", "durable", "durable"),
			bindingOf("x", "mine", "a removed one"), bindingOf("x", "mine", "mine"),
		},
	}
	check(t, c.Declare(ctxOf(t), top))
	check(t, admin.DeleteExchange(ctxOf(t), "x", driver.DeleteOptions{}))
	check(t, admin.DeleteQueue(ctxOf(t), "durable", driver.DeleteOptions{}))
	lose(c.consume, c.restore)
	until(t, "each binding that lacks is logged, and the loss", func() bool { return log.warnings.Load() >= 5 })
	check(t, c.Unbind(ctxOf(t), []routing.Binding{bindingOf("x", "durable", "a removed one"), bindingOf("x", "mine", "a removed one")}))
	check(t, admin.Declare(ctxOf(t), x))
	p := publisherOf(t, admin, "x")
	for _, key := range []string{"durable", "mine"} {
		until(t, "the binding of "+key, func() bool { return publish(t, p, driver.Message{Key: key}) == nil })
	}
	if err := publish(t, p, driver.Message{Key: "a removed one"}); !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("a binding that was removed is back: %v", err)
	}
}

// TestCloseWhileRestoring: neither Close nor a call's ctx waits for the turn.
func TestCloseWhileRestoring(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	c.restoring.turn <- struct{}{} // as the other connection, at a broker that hangs
	waits := make(chan struct{})
	lose(c.consume, func(conn *amqp091.Connection, w *wire) { close(waits); c.restore(conn, w) })
	<-waits
	ctx, cancel := context.WithTimeout(ctxOf(t), 100*time.Millisecond)
	defer cancel()
	if err := c.Health(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Health: %v", err)
	}
	check(t, c.Close(ctxOf(t)))
}
