package amqp

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// limitedURL is the URL of a user with the permissions, in the API's form.
func limitedURL(t *testing.T, raw, permissions string) string {
	t.Helper()
	u, err := url.Parse(raw)
	check(t, err)
	name := "limited-" + rndID()
	manage(t, u, "/api/users/"+name, `{"password":"secret","tags":""}`)
	manage(t, u, "/api/permissions/"+u.Path[1:]+"/"+name, permissions)
	u.User, u.RawQuery = url.UserPassword(name, "secret"), ""
	return u.String()
}

func moverOf(c *Conn) *mover {
	c.movers.mu.Lock()
	defer c.movers.mu.Unlock()
	return c.movers.now
}

func sessionOf(o *outbox) *session {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.session
}

// TestMoverMayNot: others delay messages for an exchange that this Conn's user
// may not write to. What it moves in vain comes by another, and its own
// publishers do not notice.
func TestMoverMayNot(t *testing.T) {
	t.Parallel()
	raw := testbroker.URL(t, "amqp")
	admin := openURL(t, raw)
	check(t, admin.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "secret", Kind: routing.Fanout}, {Name: "open", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "s"}, {Name: "o"}},
		Bindings:  []routing.Binding{{Exchange: "secret", Queue: "s"}, {Exchange: "open", Queue: "o"}},
	}))
	limited := openURL(t, limitedURL(t, raw, `{"configure":"^polymq.*","write":"^(polymq.*|amq.default|open)$","read":".*"}`))
	delayed := publisherOf(t, admin, "secret")
	check(t, publish(t, delayed, driver.Message{ID: "first", Delay: 10 * time.Millisecond}))
	until(t, "the limited one moves", func() bool { limited.startMover(); return moverOf(limited) != nil })
	own := publisherOf(t, limited, "open")
	check(t, publish(t, own, driver.Message{}))
	session := sessionOf(limited.out)
	confirmed, count, end := load(t, own, "")
	const n = 8
	for i := range n {
		check(t, publish(t, delayed, driver.Message{ID: fmt.Sprint(i), Delay: 10 * time.Millisecond}))
	}
	s := subscribe(t, admin, "s", 100)
	for seen := map[string]bool{}; len(seen) < n+1; {
		d := receive(t, s)
		seen[d.Message.ID] = true
		settle(t, s, d, driver.Ack)
	}
	before := count.Load()
	until(t, "publishing goes on", func() bool { return count.Load() > before })
	end()
	if sessionOf(limited.out) != session {
		t.Error("the channel of the application's publishers was closed")
	}
	if got, err := admin.Purge(ctxOf(t), "o"); err != nil || got != len(confirmed)+1 {
		t.Errorf("%d messages confirmed, %d are there: %v", len(confirmed)+1, got, err)
	}
}

// TestMoverOfQueueThatNeverAnswers: a queue never confirms what is delayed for
// it. Neither is held up by that: what the Conn publishes itself, nor what is
// delayed for others.
func TestMoverOfQueueThatNeverAnswers(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("-short: starts a broker")
	}
	b := testbroker.Start(t, "amqp")
	c := openURL(t, b.URL())
	declare(t, c, routing.Queue{Name: "q"}, routing.Queue{Name: "plain"})
	p := publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{Key: "q", Delay: 10 * time.Millisecond}))
	s := subscribe(t, c, "q", 100)
	settle(t, s, receive(t, s), driver.Ack)
	time.Sleep(declareSettles)
	// The broker forgets the younger half of a queue that it was killed over.
	declare(t, c, routing.Queue{Name: "dead"})
	b.Kill()
	b.Start()
	check(t, publish(t, p, driver.Message{Key: "q", ID: "back"}))
	settle(t, s, receive(t, s), driver.Ack)
	x := publishing(driver.Message{Key: "dead"})
	other := openURL(t, b.URL())
	publisherOf(t, other, "").Publish(ctxOf(t), []*driver.Publishing{x}, false)
	select {
	case <-x.Owner.(*outcome).done:
		t.Fatalf("the queue answers: %v", x.Err())
	case <-time.After(3 * time.Second):
	}
	check(t, other.Close(ctxOf(t))) // it would move some of them too
	_, count, end := load(t, p, "plain")
	var xs []*driver.Publishing
	for i := range 3 * moverPrefetch {
		xs = append(xs, publishing(driver.Message{ID: fmt.Sprint("dead", i), Key: "dead", Delay: 10 * time.Millisecond}))
	}
	publisherOf(t, c, "").Publish(ctxOf(t), xs, true)
	for _, x := range xs {
		check(t, wait(t, x))
	}
	for i := range 3 {
		start := time.Now()
		check(t, publish(t, p, driver.Message{ID: fmt.Sprint(i), Key: "q", Delay: 10 * time.Millisecond}))
		d := receive(t, s)
		t.Logf("%s after %v", d.Message.ID, time.Since(start))
		settle(t, s, d, driver.Ack)
		n := count.Load()
		until(t, "publishing goes on", func() bool { return count.Load() > n+100 })
	}
	end()
	b.Kill() // Close would wait for the answers
}

// TestDueDeleted: what delayed messages need is deleted. It is made anew for
// what is delayed later.
func TestDueDeleted(t *testing.T) {
	t.Parallel()
	url := testbroker.URL(t, "amqp")
	c, other := openURL(t, url), openURL(t, url)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	s := subscribe(t, c, "q", 1)
	for _, queue := range []string{"", dueQueue, levelQueue(2), dueQueue} {
		if queue != "" {
			old := moverOf(c)
			check(t, other.do(ctxOf(t), func(ch *channel) error {
				_, err := ch.QueueDelete(queue, false, false, false)
				return err
			}))
			if queue == dueQueue {
				until(t, "another mover", func() bool { m := moverOf(c); return m != nil && m != old })
			}
		}
		check(t, publish(t, p, driver.Message{Key: "q", ID: queue, Delay: 50 * time.Millisecond}))
		settle(t, s, receive(t, s), driver.Ack)
	}
}

// TestDelayedWhileAway: what waits for its way is gone when the connection is
// back, as after a broker was killed that had not yet written it down.
func TestDelayedWhileAway(t *testing.T) {
	raw := testbroker.URL(t, "amqp")
	link := testbroker.Proxy(t, raw)
	c, other := openURL(t, link.URL()), openURL(t, raw)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	s := subscribe(t, other, "q", 1)
	delayed := driver.Message{Key: "q", ID: "before", Delay: 40 * time.Millisecond}
	check(t, publish(t, p, delayed))
	settle(t, s, receive(t, s), driver.Ack)
	link.Stall(true)
	delayed.ID = "flying"
	flying := publishing(delayed)
	p.Publish(ctxOf(t), []*driver.Publishing{flying}, true)
	until(t, "it is in flight", func() bool {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return len(c.out.flight) == 1
	})
	link.Refuse(true)
	link.Cut()
	link.Stall(false)
	until(t, "the connections are lost", func() bool {
		return c.publish.state() == driver.Disconnected && c.consume.state() == driver.Disconnected
	})
	check(t, other.do(ctxOf(t), func(ch *channel) error {
		_, err := ch.QueueDelete(dueQueue, false, false, false)
		return err
	}))
	delayed.ID = "later"
	later := publishing(delayed)
	p.Publish(ctxOf(t), []*driver.Publishing{later}, true)
	link.Refuse(false)
	check(t, wait(t, flying))
	check(t, wait(t, later))
	for seen := map[string]bool{}; len(seen) < 2; {
		d := receive(t, s)
		seen[d.Message.ID] = true
		settle(t, s, d, driver.Ack)
	}
}

// TestMoverComesBack: what comes by a new connection, as soon as that is there, is not taken
// for what came by the old one.
func TestMoverComesBack(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"})
	s, p := subscribe(t, c, "q", 1), publisherOf(t, c, "")
	check(t, publish(t, p, driver.Message{Key: "q", ID: "before", Delay: 10 * time.Millisecond}))
	settle(t, s, receive(t, s), driver.Ack)
	m, l := moverOf(c), c.movers.link
	l.mu.Lock() // the link's goroutine takes it before it looks at onUp again
	up := l.onUp
	l.onUp = func(conn *amqp091.Connection, w *wire) {
		until(t, "the mover has taken the next", func() bool {
			m.mu.Lock()
			defer m.mu.Unlock()
			for x := range m.open {
				if x.d.Message.ID == "after" {
					return true
				}
			}
			return false
		})
		up(conn, w)
	}
	l.wire.cut()
	l.mu.Unlock()
	check(t, publish(t, p, driver.Message{Key: "q", ID: "after", Delay: 10 * time.Millisecond}))
	for id := ""; id != "after"; { // the first can come again
		d := receive(t, s)
		settle(t, s, d, driver.Ack)
		id = d.Message.ID
	}
}

// TestMoverMayNotConfigure: a user who may not make the levels in which messages
// are put by leaves what is due to others, and says so once.
func TestMoverMayNotConfigure(t *testing.T) {
	t.Parallel()
	raw := testbroker.URL(t, "amqp")
	admin := openURL(t, raw)
	declare(t, admin, routing.Queue{Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}, routing.Queue{Name: "q"})
	p := publisherOf(t, admin, "")
	check(t, publish(t, p, driver.Message{Key: "full"}))
	check(t, publish(t, p, driver.Message{Key: "q", ID: "first", Delay: 10 * time.Millisecond}))
	s := subscribe(t, admin, "q", 1)
	settle(t, s, receive(t, s), driver.Ack)
	log := &countingLog{}
	limited := openLogged(t, limitedURL(t, raw, `{"configure":"","write":".*","read":".*"}`), log)
	until(t, "it has found that it may not", func() bool { limited.startMover(); return log.warnings.Load() > 0 })
	var xs []*driver.Publishing
	for i := range 2 * moverPrefetch {
		xs = append(xs, publishing(driver.Message{ID: fmt.Sprint(i), Key: "full", Delay: 10 * time.Millisecond}))
	}
	p.Publish(ctxOf(t), xs, true)
	for _, x := range xs {
		check(t, wait(t, x))
	}
	check(t, publish(t, p, driver.Message{Key: "q", ID: "behind", Delay: 10 * time.Millisecond}))
	start := time.Now()
	receive(t, s)
	t.Logf("came after %v", time.Since(start))
	limited.startMover()
	if n := log.warnings.Load(); n != 1 || moverOf(limited) != nil {
		t.Errorf("%d warnings", n)
	}
	if text := log.last.Load(); !strings.Contains(fmt.Sprint(text), "until it is opened anew") {
		t.Errorf("the warning does not say for how long: %v", text)
	}
}

// countingLog counts warnings.
type countingLog struct {
	slog.Handler
	warnings atomic.Int64
	last     atomic.Value // a warning's text
}

func (*countingLog) Enabled(context.Context, slog.Level) bool { return true }

func (l *countingLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level >= slog.LevelWarn {
		l.last.Store(r.Message)
		l.warnings.Add(1)
	}
	return nil
}
