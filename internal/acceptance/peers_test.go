package acceptance_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
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

// TestPeers are the defects of other libraries that no other test would notice
// here; peers_table_test.go tells of each.
func TestPeers(t *testing.T) {
	brokers := all[1:]
	for _, c := range []struct {
		name    string
		schemes []string
		test    func(t *testing.T, scheme string)
	}{
		{"01_components-contrib_4335", brokers, subscribeWhileAway},
		{"03_amqp091-go_32", brokers, closeAmidEverything},
		{"04_go-rabbitmq_119", brokers, outcomesStayTheirOwn},
		{"06_components-contrib_3219", []string{"redis"}, groupLostWithTheData},
		{"07_components-contrib_4599", []string{"nats", "redis"}, bufferedIsHeld},
		{"12_go-redis_2276", []string{"redis"}, poolOfOne},
		{"26_nats.go_1972", []string{"nats"}, consumerDeleted},
		{"3b_dapr-redis_no-pause", brokers, outageIsQuiet},
		{"3b_watermill-nats_two-values", []string{"nats"}, twoValues},
		{"3b_watermill-redisstream_nack", brokers, nackedHoldsUpNobody},
		{"3b_go-rabbitmq_spin", brokers, drainingTakesNothing},
	} {
		for _, scheme := range c.schemes {
			t.Run(c.name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				c.test(t, scheme)
			})
		}
	}
}

var plain = routing.Topology{Queues: []routing.Queue{{Name: "q"}}}

func send(t *testing.T, ctx context.Context, pub *polymq.Publisher, key string, bodies ...string) {
	t.Helper()
	var msgs []*polymq.Message
	for _, b := range bodies {
		msgs = append(msgs, &polymq.Message{Key: key, Body: []byte(b)})
	}
	if err := pub.Publish(ctx, msgs...); err != nil {
		t.Fatal(err)
	}
}

// take receives a message and acknowledges it.
func take(t *testing.T, ctx context.Context, sub *polymq.Subscriber) string {
	t.Helper()
	for {
		d, err := sub.Receive(ctx)
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		if err := d.Ack(ctx); errors.Is(err, polymq.ErrLost) {
			continue // it comes again
		} else if err != nil {
			t.Fatalf("Ack: %v", err)
		}
		return string(d.Body)
	}
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

// leased gives a URL a short lease where the backend has one.
func leased(scheme, url string) string {
	if scheme == "amqp" {
		return url
	}
	return url + "&lease=1s"
}

func subscribeWhileAway(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, testbroker.URL(t, scheme))
	conn := open(t, link.URL())
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	send(t, ctx, publisher(t, conn, ""), "q", "waiting")
	link.Refuse(true)
	link.Cut()
	type result struct {
		sub *polymq.Subscriber
		err error
	}
	made := make(chan result, 1)
	go func() {
		sub, err := conn.Subscriber(ctx, "q", nil)
		made <- result{sub, err}
	}()
	select {
	case r := <-made:
		t.Fatalf("Subscriber returned %v while the broker was away", r.err)
	case <-time.After(time.Second): // how long the broker is away
	}
	link.Refuse(false)
	r := <-made
	if r.err != nil {
		t.Fatal(r.err)
	}
	if got := take(t, ctx, r.sub); got != "waiting" {
		t.Errorf("received %q", got)
	}
}

// closeAmidEverything closes a connection from several sides while it publishes,
// receives, settles and is cut off. TestMain looks for goroutines that are left.
func closeAmidEverything(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, leased(scheme, testbroker.URL(t, scheme)))
	declare(t, open(t, link.URL()), plain)
	ctx := within(t, 2*time.Minute)
	for round := range 4 {
		conn, err := polymq.Open(ctx, link.URL(), nil)
		if err != nil {
			t.Fatal(err)
		}
		pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 20)
		running, err := conn.Subscriber(ctx, "q", nil)
		if err != nil {
			t.Fatal(err)
		}
		var busy, closing sync.WaitGroup
		var began atomic.Int64
		for range 3 {
			busy.Go(func() {
				for pub.Publish(ctx, &polymq.Message{Key: "q"}) == nil {
					began.Add(1)
				}
			})
			busy.Go(func() {
				for {
					if _, err := pub.PublishAsync(ctx, &polymq.Message{Key: "q"}); err != nil {
						return
					}
				}
			})
		}
		busy.Go(func() {
			for {
				d, err := sub.Receive(ctx)
				if err != nil {
					return
				}
				_ = d.Ack(ctx) // the hold may be lost
			}
		})
		busy.Go(func() { _ = running.Run(ctx, func(context.Context, *polymq.Delivery) error { return nil }) })
		await(t, ctx, "publishing", func() bool { return began.Load() > 50 })
		switch round {
		case 1:
			link.Cut()
		case 2:
			link.Refuse(true)
			link.Cut()
		case 3:
			link.Stall(true)
		}
		ended := make(chan struct{})
		for range 3 {
			closing.Go(func() {
				short, cancel := context.WithTimeout(ctx, 2*time.Second)
				defer cancel()
				err := conn.Close(short)
				if round < 1 && err != nil {
					t.Errorf("Close: %v", err)
				}
			})
		}
		closing.Go(func() { _ = sub.Close(within(t, 2*time.Second)) })
		go func() {
			closing.Wait()
			busy.Wait()
			close(ended)
		}()
		select {
		case <-ended:
		case <-time.After(time.Minute):
			t.Fatalf("round %d: something has not ended a minute after Close", round)
		}
		link.Refuse(false)
		link.Stall(false)
	}
}

// outcomesStayTheirOwn publishes what is routed beside what is not, while the
// connection is cut again and again.
func outcomesStayTheirOwn(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, testbroker.URL(t, scheme))
	conn := open(t, link.URL())
	declare(t, conn, plain)
	ctx := within(t, 2*time.Minute)
	pub := publisher(t, conn, "")
	var done atomic.Int64
	var wg sync.WaitGroup
	over := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-over:
					return
				default:
				}
				m := &polymq.Message{Key: "q"}
				if (i+w)%2 == 0 {
					m.Key = "nowhere"
				}
				err := pub.Publish(ctx, m)
				right := err == nil
				if m.Key == "nowhere" { // unknown where an earlier try was cut off
					right = errors.Is(err, polymq.ErrUnroutable) || errors.Is(err, polymq.ErrUnconfirmed)
				}
				if !right {
					t.Errorf("to %s: %v", m.Key, err)
					return
				}
				done.Add(1)
			}
		})
	}
	for range 10 {
		n := done.Load()
		await(t, ctx, "publishing", func() bool { return t.Failed() || done.Load() >= n+40 })
		link.Cut()
	}
	close(over)
	wg.Wait()
}

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

// bufferedIsHeld: what waits in a subscriber behind a slow handler goes to nobody
// else, for several leases.
func bufferedIsHeld(t *testing.T, scheme string) {
	conn := open(t, leased(scheme, testbroker.URL(t, scheme)))
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	slow := subscriber(t, conn, "q", 10)
	send(t, ctx, publisher(t, conn, ""), "q", strings.Split("0123456789", "")...)
	first, err := slow.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	await(t, ctx, "all are buffered", func() bool {
		info, err := conn.Inspect(ctx, "q")
		return err == nil && info.Ready == 0
	})
	other := subscriber(t, conn, "q", 10)
	waiting, cancel := context.WithTimeout(ctx, 3*time.Second) // three leases
	defer cancel()
	if d, err := other.Receive(waiting); err == nil {
		t.Errorf("%q came to another", d.Body)
	}
	if err := first.Ack(ctx); err != nil {
		t.Error(err)
	}
	for i := 1; i < 10; i++ {
		if got := take(t, ctx, slow); got != fmt.Sprint(i) {
			t.Errorf("received %q, want %d", got, i)
		}
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

// records counts what is logged.
type records struct{ n *atomic.Int64 }

func (records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) Handle(context.Context, slog.Record) error {
	r.n.Add(1)
	return nil
}
func (r records) WithAttrs([]slog.Attr) slog.Handler { return r }
func (r records) WithGroup(string) slog.Handler      { return r }

// outageIsQuiet: while the broker is away nothing is tried, or logged, without a
// pause.
func outageIsQuiet(t *testing.T, scheme string) {
	link := testbroker.Proxy(t, testbroker.URL(t, scheme))
	ctx := within(t, time.Minute)
	var logged atomic.Int64
	conn, err := polymq.Open(ctx, link.URL(), &polymq.Options{Logger: slog.New(records{&logged})})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := conn.Close(ctx); err != nil {
			t.Error(err)
		}
	}()
	declare(t, conn, plain)
	pub, sub := publisher(t, conn, ""), subscriber(t, conn, "q", 5)
	send(t, ctx, pub, "q", "before")
	take(t, ctx, sub)
	link.Refuse(true)
	link.Cut()
	away, cancel := context.WithTimeout(ctx, 2*time.Second) // how long the broker is away
	defer cancel()
	if _, err := sub.Receive(away); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Receive while the broker is away: %v", err)
	}
	if n := logged.Load(); n > 100 {
		t.Errorf("%d records were logged in two seconds", n)
	}
	link.Refuse(false)
	send(t, ctx, pub, "q", "after")
	take(t, ctx, sub)
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

// nackedHoldsUpNobody nacks one message for long: the others come.
func nackedHoldsUpNobody(t *testing.T, scheme string) {
	conn := open(t, testbroker.URL(t, scheme))
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	sub := subscriber(t, conn, "q", 1)
	send(t, ctx, publisher(t, conn, ""), "q", "bad", "1", "2")
	d, err := sub.Receive(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Nack(ctx, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"1", "2"} {
		if got := take(t, ctx, sub); got != want {
			t.Errorf("received %q, want %q", got, want)
		}
	}
}

// drainingTakesNothing: what Run gave back when its ctx ended comes to another
// while a handler of Run still works, each message once.
func drainingTakesNothing(t *testing.T, scheme string) {
	conn := open(t, testbroker.URL(t, scheme))
	declare(t, conn, plain)
	ctx := within(t, time.Minute)
	var bodies []string
	for i := range 100 {
		bodies = append(bodies, fmt.Sprint(i))
	}
	send(t, ctx, publisher(t, conn, ""), "q", bodies...)
	sub := subscriber(t, conn, "q", 20)
	taking, stop := context.WithCancel(ctx)
	busy, finish := make(chan struct{}), make(chan struct{})
	ran := make(chan error, 1)
	go func() {
		ran <- sub.Run(taking, func(context.Context, *polymq.Delivery) error {
			close(busy)
			<-finish
			return nil
		})
	}()
	<-busy
	stop()
	rest := subscriber(t, conn, "q", 20)
	seen := map[string]int{}
	for len(seen) < 99 {
		d, err := rest.Receive(ctx)
		if err != nil {
			t.Fatalf("after %d of 99: %v", len(seen), err)
		}
		if seen[string(d.Body)]++; seen[string(d.Body)] > 1 || d.Attempt > 2 {
			t.Errorf("%s came %d times, attempt %d", d.Body, seen[string(d.Body)], d.Attempt)
		}
		if err := d.Ack(ctx); err != nil {
			t.Error(err)
		}
	}
	close(finish)
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
}
