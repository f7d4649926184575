package acceptance_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/drivers/mem"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// What a connection declares anew, and otherwise, after somebody else has deleted it,
// does not get the bindings of what it was before when the connection comes back.
func TestDeclaredOtherwise(t *testing.T) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx := within(t, time.Minute)
			url := testbroker.URL(t, scheme)
			conn, sever := severed(t, url)
			other := open(t, url)
			exchange := func(name string, kind routing.Kind) routing.Exchange {
				return routing.Exchange{Name: name, Kind: kind, Transient: true}
			}
			bound := func(exchange, queue, key string) routing.Binding {
				return routing.Binding{Exchange: exchange, Queue: queue, Key: key}
			}
			declare(t, conn, routing.Topology{
				Exchanges: []routing.Exchange{exchange("x", routing.Direct), exchange("changed", routing.Direct)},
				Queues:    []routing.Queue{{Name: "passes"}, {Name: "bounded"}, {Name: "lasts"}, {Name: "stays"}},
				Bindings:  []routing.Binding{bound("x", "passes", "old"), bound("x", "bounded", "old"), bound("x", "lasts", "kept"), bound("changed", "lasts", "old"), bound("x", "stays", "kept")},
			})
			for _, err := range []error{other.DeleteQueue(ctx, "passes", nil), other.DeleteQueue(ctx, "bounded", nil), other.DeleteExchange(ctx, "changed", nil)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			declare(t, conn, routing.Topology{
				Exchanges: []routing.Exchange{exchange("changed", routing.Topic)},
				Queues:    []routing.Queue{{Name: "passes", Expires: time.Hour}, {Name: "bounded", MaxLength: 10}},
				Bindings:  []routing.Binding{bound("x", "passes", "new"), bound("x", "bounded", "other"), bound("changed", "lasts", "new")},
			})
			sever()
			for at, want := range map[[2]string]error{
				{"x", "old"}: polymq.ErrUnroutable, {"x", "new"}: nil, {"x", "other"}: nil, {"x", "kept"}: nil,
				{"changed", "old"}: polymq.ErrUnroutable, {"changed", "new"}: nil,
			} {
				err := publisher(t, conn, at[0]).Publish(ctx, &polymq.Message{Key: at[1]})
				if !errors.Is(err, want) {
					t.Errorf("to %q with the key %q: %v, want %v", at[0], at[1], err, want)
				}
			}
		})
	}
}

// A node of a cluster is down, and with it a queue that has no other copy. A connection
// that comes back meanwhile publishes to the queues that are there, and to this one
// when its node is up again.
func TestBackWhileAQueueIsDown(t *testing.T) {
	c := testbroker.StartCluster(t, "nats")
	ctx := within(t, 3*time.Minute)
	queue := func(name string) routing.Topology { return routing.Topology{Queues: []routing.Queue{{Name: name}}} }
	declare(t, open(t, c.URL()), queue("tripled")) // as the topology is
	conn, lose := losing(t, strings.Replace(c.URL(), "replicas=3", "replicas=1", 1))
	declare(t, conn, queue("single"))
	nc := conn.Native().(*natsgo.Conn)
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	node := ""
	for s := range js.Streams(natsgo.Context(ctx)) {
		if s.Config.Metadata["polymq-queue"] == "single" {
			node = s.Cluster.Leader
		}
	}
	lost := c.Nodes[slices.IndexFunc(c.Nodes, func(b *testbroker.Broker) bool {
		return strings.Contains(b.URL(), strings.TrimPrefix(node, "n"))
	})]
	pub := publisher(t, conn, "")
	lose(func() {
		lost.Kill()
		_ = nc.ForceReconnect() // it may not have been this node's
	})
	waits := make(chan error, 1)
	go func() { waits <- pub.Publish(ctx, &polymq.Message{Key: "single"}) }()
	if err := pub.Publish(within(t, time.Minute), &polymq.Message{Key: "tripled"}); err != nil {
		t.Errorf("to a queue that is there: %v", err)
	}
	select {
	case err := <-waits:
		t.Fatalf("to a queue that is down: %v", err)
	default:
	}
	lost.Start()
	if err := <-waits; err != nil {
		t.Errorf("to a queue that is up again: %v", err)
	}
}

// severed is a connection, and what loses it and returns when it is back.
func severed(t *testing.T, url string) (conn *polymq.Conn, sever func()) {
	t.Helper()
	cut := func() { mem.Sever(strings.TrimPrefix(url, "mem://")) }
	if !strings.HasPrefix(url, "mem:") {
		link := testbroker.Proxy(t, url)
		cut, url = link.Cut, link.URL()
	}
	conn, lose := losing(t, url)
	return conn, func() { lose(cut) }
}

// losing is a connection, and what calls what loses it and returns when it is back.
func losing(t *testing.T, url string) (conn *polymq.Conn, lose func(cut func())) {
	t.Helper()
	states := make(chan polymq.State, 100)
	conn, err := polymq.Open(t.Context(), url, &polymq.Options{OnState: func(s polymq.State, _ error) { states <- s }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn, func(cut func()) {
		for len(states) > 0 {
			<-states
		}
		cut()
		for _, want := range []polymq.State{polymq.StateDisconnected, polymq.StateConnected} {
			for got := polymq.State(0); got != want; {
				select {
				case got = <-states:
				case <-time.After(time.Minute):
					t.Fatalf("the connection does not become %v", want)
				}
			}
		}
	}
}
