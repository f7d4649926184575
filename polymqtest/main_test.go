package polymqtest_test

import (
	"context"
	"errors"
	"flag"
	"testing"
	"time"

	"github.com/polymq/polymq"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

// onEach runs f in memory and on every real broker, as a user names it.
func onEach(t *testing.T, f func(t *testing.T, b *polymqtest.Broker)) {
	t.Run("mem", func(t *testing.T) {
		t.Setenv(polymqtest.Env, "")
		polymqtest.Run(t, f)
	})
	for _, scheme := range []string{"amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			t.Setenv(polymqtest.Env, testbroker.URL(t, scheme))
			polymqtest.Run(t, f)
		})
	}
}

// example runs a test in memory inside of an Example, once and without lines of its
// own in the output.
func example(test func(t *testing.T)) {
	for name, value := range map[string]string{"test.v": "false", "test.count": "1"} {
		f := flag.Lookup(name)
		was := f.Value.String()
		must(f.Value.Set(value))
		defer func() { must(f.Value.Set(was)) }()
	}
	all := func(string, string) (bool, error) { return true, nil }
	testing.RunTests(all, []testing.InternalTest{{Name: "example", F: func(t *testing.T) {
		t.Setenv(polymqtest.Env, "")
		test(t)
	}}})
}

// inMemory runs f in memory.
func inMemory(t *testing.T, f func(t *testing.T, b *polymqtest.Broker)) {
	t.Setenv(polymqtest.Env, "")
	polymqtest.Run(t, f)
}

var orders = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}, {Name: "dead", Kind: routing.Fanout}},
	Queues: []routing.Queue{
		{Name: "billing", DeadLetterExchange: "dead"},
		{Name: "stock", DeadLetterExchange: "dead"},
		{Name: "graveyard"},
	},
	Bindings: []routing.Binding{
		{Exchange: "orders", Queue: "billing", Key: "order.*"},
		{Exchange: "orders", Queue: "stock", Key: "order.new"},
		{Exchange: "dead", Queue: "graveyard"},
	},
}

// serve runs h on a queue until the test ends.
func serve(t *testing.T, conn *polymq.Conn, queue string, opts *polymq.SubscriberOptions, h polymq.Handler) {
	t.Helper()
	sub, err := conn.Subscriber(t.Context(), queue, opts)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sub.Run(ctx, h) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func publisher(t *testing.T, conn *polymq.Conn, exchange string) *polymq.Publisher {
	t.Helper()
	p, err := conn.Publisher(t.Context(), exchange, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func wantReady(t *testing.T, conn *polymq.Conn, queue string, want int) {
	t.Helper()
	info, err := conn.Inspect(t.Context(), queue)
	if err != nil {
		t.Fatal(err)
	}
	if info.Ready != want {
		t.Errorf("%s has %d ready messages, want %d", queue, info.Ready, want)
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("got error %v, want %v", err, target)
	}
}

var atOnce = &polymq.SubscriberOptions{Backoff: func(int) time.Duration { return 0 }, Concurrency: 4}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
