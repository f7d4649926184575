package acceptance_test

import (
	"errors"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// groupLostWithTheData restarts a Redis that keeps nothing.
func groupLostWithTheData(t *testing.T, scheme string) {
	b := testbroker.Start(t, scheme)
	conn := open(t, b.URL()+"?durability=memory")
	native := conn.Native().(goredis.UniversalClient)
	for _, set := range [][2]string{{"appendonly", "no"}, {"save", ""}} {
		if err := native.ConfigSet(t.Context(), set[0], set[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	ctx := within(t, time.Minute)
	declare(t, conn, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}}, Queues: plain.Queues,
		Bindings: []routing.Binding{{Exchange: "x", Queue: "q"}},
	})
	pub, sub := publisher(t, conn, "x"), subscriber(t, conn, "q", 5)
	send(t, ctx, pub, "", "before")
	take(t, ctx, sub)
	if err := native.FlushAll(ctx).Err(); err != nil { // all that it had, and on its disk too
		t.Fatal(err)
	}
	b.Restart()
	send(t, ctx, pub, "", "after")
	if got := take(t, ctx, sub); got != "after" {
		t.Errorf("received %q", got)
	}
}

// poolOfOne has many readers that wait share what would be a pool of one.
func poolOfOne(t *testing.T, scheme string) {
	conn, err := polymq.Open(t.Context(), testbroker.URL(t, scheme)+"&pool=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	var got atomic.Int64
	for range 20 {
		sub := subscriber(t, conn, "q", 1)
		wg.Go(func() {
			for {
				d, err := sub.Receive(ctx)
				if err != nil {
					return
				}
				got.Add(1)
				_ = d.Ack(ctx) // Close may be faster
			}
		})
	}
	pub := publisher(t, conn, "")
	for range 50 {
		send(t, ctx, pub, "q", "m")
	}
	await(t, ctx, "50 messages", func() bool { return got.Load() >= 50 })
	if err := conn.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
}

// consumerDeleted deletes the consumer in the server below a subscriber.
func consumerDeleted(t *testing.T, scheme string) {
	at := testbroker.URL(t, scheme)
	conn := open(t, at)
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 5)
	send(t, ctx, pub, "q", "before")
	take(t, ctx, sub)
	js, err := jetstream.New(conn.Native().(*natsgo.Conn))
	if err != nil {
		t.Fatal(err)
	}
	deleted := 0
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if strings.Contains(info.Config.Name, "_topology") || !strings.Contains(info.Config.Name, vhost(t, at)) {
			continue // another test's may go at any moment
		}
		s, err := js.Stream(ctx, info.Config.Name)
		if err != nil {
			t.Fatal(err)
		}
		consumers := s.ListConsumers(ctx)
		for c := range consumers.Info() {
			if err := s.DeleteConsumer(ctx, c.Name); err != nil {
				t.Fatal(err)
			}
			deleted++
		}
	}
	if deleted == 0 {
		t.Fatal("no consumer was found")
	}
	send(t, ctx, pub, "q", "after")
	d, err := sub.Receive(ctx)
	switch {
	case errors.Is(err, polymq.ErrNotFound): // said, and what was published is there for the next
		declare(t, conn, plain)
		if got := take(t, ctx, subscriber(t, conn, "q", 5)); got != "after" {
			t.Errorf("received %q", got)
		}
	case err != nil:
		t.Error(err)
	case string(d.Body) != "after":
		t.Errorf("received %q", d.Body)
	}
}

// twoValues publishes by NATS' own means what this library never would.
func twoValues(t *testing.T, scheme string) {
	at := testbroker.URL(t, scheme)
	conn := open(t, at)
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 5)
	js, err := jetstream.New(conn.Native().(*natsgo.Conn))
	if err != nil {
		t.Fatal(err)
	}
	sent := 0
	streams := js.ListStreams(ctx)
	for info := range streams.Info() {
		if strings.HasSuffix(info.Config.Name, "_topology") || !strings.Contains(info.Config.Name, vhost(t, at)) {
			continue
		}
		for _, subject := range info.Config.Subjects {
			m := natsgo.NewMsg(strings.NewReplacer("*", "m", ">", "m").Replace(subject))
			m.Header = natsgo.Header{"twice": {"one", "two"}, "Nats-Foreign": {"a", "b"}, "empty": {}}
			m.Data = []byte("foreign")
			if _, err := js.PublishMsg(ctx, m); err == nil {
				sent++
			}
		}
	}
	if sent == 0 {
		t.Fatal("nothing foreign could be published")
	}
	send(t, ctx, pub, "q", "ours")
	for range sent + 1 {
		if take(t, ctx, sub) == "ours" {
			return
		}
	}
	t.Error("what was published after it did not come")
}

// vhost is the namespace that a URL names.
func vhost(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get("vhost")
}
