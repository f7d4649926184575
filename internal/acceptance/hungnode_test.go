package acceptance_test

import (
	"context"
	"errors"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// hungQueues are in the clusters of TestHungNode: some on each node.
var hungQueues = []string{"a", "b", "c", "d", "e", "f", "limited"}

// TestHungNode: a node of a cluster hangs while subscribers wait, deliveries are held
// and publishes are under way: on NATS the one that the connection is on (drivers/nats
// has a test for the one that leads a queue), elsewhere the one that leads, which on
// RabbitMQ is another one. TestLeaderLostUnderLoad is on a load; here all is idle when
// it happens, so that nothing but the library's own looking notices it.
func TestHungNode(t *testing.T) {
	t.Run("in", func(t *testing.T) {
		for _, scheme := range []string{"amqp", "nats", "redis+cluster", "redis+sentinel"} {
			t.Run(scheme, func(t *testing.T) {
				t.Parallel() // it is waiting for others to notice, mostly
				c := testbroker.StartCluster(t, scheme)
				nodeHangs(t, c, scheme, func(conn *polymq.Conn) *testbroker.Broker {
					if nc, ok := conn.Native().(*natsgo.Conn); ok {
						return nodeAt(t, c, nc.ConnectedAddr())
					}
					return c.Leader()
				})
			})
		}
	})
	nothingLeft(t)
}

// urls are how to connect to a cluster so that a hung node is noticed soon, and by
// way of another node than connections begin with, where that is told: on RabbitMQ it
// leads what is declared through it.
func urls(c *testbroker.Cluster, scheme string) (usual, elsewhere string) {
	option := "lease=3s"
	if scheme == "amqp" {
		option = "heartbeat=1s"
	}
	usual = c.URL() + "?" + option
	if strings.Contains(c.URL(), "?") {
		usual = c.URL() + "&" + option
	}
	if scheme == "amqp" {
		return usual, c.Nodes[1].URL()
	}
	return usual, usual
}

// nodeAt is the node with an address.
func nodeAt(t *testing.T, c *testbroker.Cluster, host string) *testbroker.Broker {
	t.Helper()
	for _, n := range c.Nodes {
		if u, err := url.Parse(n.URL()); err == nil && u.Host == host {
			return n
		}
	}
	t.Fatalf("no node has the address %q", host)
	return nil
}

// whole is all that a connection can have in the test.
type whole struct {
	conn *polymq.Conn
	pub  *polymq.Publisher
	subs map[string]*polymq.Subscriber
}

func openWhole(t *testing.T, ctx context.Context, at string, prefetch int, queues ...string) whole {
	t.Helper()
	conn, err := polymq.Open(ctx, at, nil)
	if err != nil {
		t.Fatal(err)
	}
	w := whole{conn, publisher(t, conn, ""), map[string]*polymq.Subscriber{}}
	for _, q := range queues {
		if w.subs[q], err = conn.Subscriber(ctx, q, &polymq.SubscriberOptions{Prefetch: prefetch}); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// close closes all of it within 2 s each.
func (w whole) close(t *testing.T) {
	t.Helper()
	var closing sync.WaitGroup
	for q, sub := range w.subs {
		if q != "a" { // that one the connection closes
			closing.Go(func() { inTime(t, "Close of the subscriber of "+q, 2*time.Second, sub.Close) })
		}
	}
	closing.Go(func() { inTime(t, "Close of the publisher", 2*time.Second, w.pub.Close) })
	closing.Wait()
	inTime(t, "Close of the connection", 2*time.Second, w.conn.Close)
}

// fate is what is known of the messages of a test, by ID.
type fate struct {
	mu        sync.Mutex
	confirmed []string
	refused   map[string]error
	came      map[string]bool // and was not lost
}

func (f *fate) published(id string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.confirmed = append(f.confirmed, id)
	case !errors.Is(err, polymq.ErrUnconfirmed):
		f.refused[id] = err
	}
}

// settle acknowledges what a subscriber was given. What was lost comes again.
func (f *fate) settle(t *testing.T, ctx context.Context, d *polymq.Delivery) {
	err := d.Ack(ctx)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.came[d.ID] = true
	case !errors.Is(err, polymq.ErrLost):
		t.Errorf("Ack of %s: %v", d.ID, err)
	}
	if refused := f.refused[d.ID]; refused != nil {
		t.Errorf("%s came, and Publish had said %v", d.ID, refused)
	}
}

// receive takes what comes to each subscriber until the message until is there.
func (f *fate) receive(t *testing.T, ctx context.Context, w whole, until string) {
	var taking sync.WaitGroup
	for q, sub := range w.subs {
		taking.Go(func() {
			for id := ""; id != q+"/"+until; {
				d, err := sub.Receive(ctx)
				if err != nil {
					t.Errorf("Receive from %s: %v", q, err)
					return
				}
				f.settle(t, ctx, d)
				id = d.ID
			}
		})
	}
	taking.Wait()
}

func (f *fate) missing() (ids []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(f.confirmed), func(id string) bool { return f.came[id] })
}

func nodeHangs(t *testing.T, c *testbroker.Cluster, scheme string, which func(*polymq.Conn) *testbroker.Broker) {
	ctx := within(t, time.Minute)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	at, elsewhere := urls(c, scheme)
	admin, err := polymq.Open(ctx, elsewhere, nil)
	must(err)
	queues := []routing.Queue{{Name: "silent"}, {Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}}
	for _, q := range hungQueues {
		queues = append(queues, routing.Queue{Name: q})
	}
	queues[len(queues)-1].MaxLength = 100
	declare(t, admin, routing.Topology{Queues: queues})
	must(admin.Close(ctx))

	f := &fate{refused: map[string]error{}, came: map[string]bool{}}
	publish := func(ctx context.Context, w whole, q, id string) error {
		err := w.pub.Publish(ctx, &polymq.Message{ID: q + "/" + id, Key: q})
		f.published(q+"/"+id, err)
		return err
	}
	// hold has a subscriber of each queue hold one message, and have another.
	hold := func(w whole, ids ...string) (held []*polymq.Delivery) {
		for _, q := range hungQueues {
			for _, id := range ids {
				must(publish(ctx, w, q, id))
			}
			d, err := w.subs[q].Receive(ctx)
			must(err)
			held = append(held, d)
		}
		return held
	}
	var other whole
	if scheme == "amqp" { // it takes half a minute to end a channel to a node that hangs
		other = openWhole(t, ctx, at, 2, "silent")
	} else {
		other = openWhole(t, ctx, at, 2, hungQueues...)
		hold(other, "1", "2")
	}
	w := openWhole(t, ctx, at, 5, hungQueues...)
	held := hold(w, "3", "4")
	// A RabbitMQ's channel that is new to a queue waits for the node that led it.
	must(publish(ctx, w, "full", "1"))

	hung := which(w.conn)
	hung.Pause()
	resume := sync.OnceFunc(hung.Resume)
	defer resume()
	var beside sync.WaitGroup
	beside.Go(func() { other.close(t) })
	beside.Go(func() {
		for _, q := range hungQueues {
			inTime(t, "Publish to "+q, time.Second, func(ctx context.Context) error {
				err := publish(ctx, w, q, "short")
				if err != nil && !errors.Is(err, polymq.ErrUnconfirmed) {
					t.Errorf("Publish to %s: %v", q, err)
				}
				return err
			})
		}
	})
	for _, q := range append(slices.Clone(hungQueues), "full") {
		beside.Go(func() {
			// RabbitMQ has let others beyond a limit that it was just reaching.
			if err := publish(ctx, w, q, "long"); err != nil && (q != "full" || !errors.Is(err, polymq.ErrRejected)) {
				t.Errorf("Publish to %s: %v", q, err)
			}
		})
	}
	for _, d := range held[:len(held)/2] {
		beside.Go(func() { f.settle(t, ctx, d) })
	}
	beside.Wait()
	for _, d := range held[len(held)/2:] {
		f.settle(t, ctx, d)
	}
	f.receive(t, ctx, w, "long")
	if scheme != "amqp" { // see above: so do the channels of subscribers
		late := openWhole(t, ctx, at, 5, hungQueues...)
		for _, q := range hungQueues {
			must(publish(ctx, late, q, "late"))
		}
		late.close(t)
	}
	w.close(t)
	resume()

	last := openWhole(t, ctx, at, 5, hungQueues...)
	last.subs["full"] = subscriber(t, last.conn, "full", 5)
	for _, q := range hungQueues {
		must(publish(ctx, last, q, "last"))
	}
	for err := polymq.ErrRejected; err != nil; { // until its subscriber has taken what it holds
		if err = last.pub.Publish(ctx, &polymq.Message{ID: "full/last", Key: "full"}); !errors.Is(err, polymq.ErrRejected) {
			must(err)
		}
	}
	f.published("full/last", nil)
	f.receive(t, ctx, last, "last")
	for missing := f.missing(); len(missing) > 0; missing = f.missing() {
		q, _, _ := strings.Cut(missing[0], "/")
		d, err := last.subs[q].Receive(ctx)
		if err != nil {
			t.Fatalf("confirmed, and did not come: %v: %v", missing, err)
		}
		f.settle(t, ctx, d)
	}
	for q, sub := range last.subs {
		must(sub.Close(ctx))
		must(last.conn.DeleteQueue(ctx, q, nil))
	}
	must(last.conn.Close(ctx))
}
