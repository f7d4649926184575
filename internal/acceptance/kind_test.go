package acceptance_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// lastKind routes along the last binding. Only the second process knows it.
const lastKind routing.Kind = "x-polymq-last"

type lastRule struct{}

func (lastRule) CheckExchange(routing.Exchange) error { return nil }
func (lastRule) CheckBinding(routing.Binding) error   { return nil }
func (lastRule) Compile(_ routing.Exchange, bs []routing.Binding) routing.Matcher {
	return lastMatcher(len(bs))
}

type lastMatcher int

func (n lastMatcher) Match(dst []int, _ *routing.Message) []int {
	if n > 0 {
		dst = append(dst, int(n)-1)
	}
	return dst
}

// kindly declares an exchange of a kind that it has registered, publishes to
// it, and says so.
func kindly(ctx context.Context, conn *polymq.Conn, in *bufio.Scanner) error {
	routing.RegisterKind(lastKind, lastRule{})
	err := conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: lastKind, Args: map[string]any{"n": 7}}},
		Queues:    []routing.Queue{{Name: "a"}, {Name: "b"}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "a"}, {Exchange: "x", Queue: "b"}},
	})
	if err != nil {
		fmt.Println("declared:", errors.Is(err, errors.ErrUnsupported), err)
		return conn.Health(ctx)
	}
	pub, err := conn.Publisher(ctx, "x", nil)
	if err == nil {
		err = pub.Publish(ctx, &polymq.Message{Body: []byte("known")})
	}
	fmt.Println("declared")
	in.Scan()
	return err
}

// A process that does not know a kind must not guess where its messages go.
func TestUnknownKind(t *testing.T) {
	for _, scheme := range []string{"nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			at := testbroker.URL(t, scheme)
			conn := open(t, at)
			if line := start(t, "kindly", at).hear(t); line != "declared" {
				t.Fatal(line)
			}
			err := publisher(t, conn, "x").Publish(within(t, time.Minute), &polymq.Message{Body: []byte("unknown")})
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("a publish to an exchange of an unknown kind: %v", err)
			}
			for queue, want := range map[string]int{"a": 0, "b": 1} {
				if info, err := conn.Inspect(t.Context(), queue); err != nil || info.Ready != want {
					t.Errorf("queue %s has %d messages, want %d: %v", queue, info.Ready, want, err)
				}
			}
			top, err := conn.Topology(t.Context())
			if err != nil || len(top.Exchanges) != 1 || top.Exchanges[0].Args["n"] != int64(7) {
				t.Errorf("the exchange is %+v, %v", top.Exchanges, err)
			}
		})
	}
	t.Run("amqp", func(t *testing.T) {
		at := testbroker.URL(t, "amqp")
		if line := start(t, "kindly", at).hear(t); !strings.HasPrefix(line, "declared: true") || !strings.Contains(line, "rabbitmq-plugins enable") {
			t.Error(line)
		}
	})
}

// hashed is a topology with n queues behind a consistent hash; the second has
// twice the weight.
func hashed(n int, args map[string]any) routing.Topology {
	t := routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.ConsistentHash, Args: args}}}
	for i := range n {
		name, weight := fmt.Sprint("q", i), "10"
		if i == 1 {
			weight = "20"
		}
		t.Queues = append(t.Queues, routing.Queue{Name: name, Transient: true})
		t.Bindings = append(t.Bindings, routing.Binding{Exchange: "x", Queue: name, Key: weight})
	}
	return t
}

// ways publishes messages and says in which queue each arrived.
func ways(t *testing.T, conn *polymq.Conn, queues int, ms []*polymq.Message) map[string]int {
	t.Helper()
	if err := publisher(t, conn, "x").Publish(within(t, time.Minute), ms...); err != nil {
		t.Fatal(err)
	}
	way := map[string]int{}
	for i := range queues {
		name := fmt.Sprint("q", i)
		if err := publisher(t, conn, "").Publish(t.Context(), &polymq.Message{Key: name, Body: []byte("end")}); err != nil {
			t.Fatal(err)
		}
		sub := subscriber(t, conn, name, 500)
		for ended := false; !ended; {
			d, err := sub.Receive(within(t, time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if body := string(d.Body); body == "end" {
				ended = true
			} else if _, twice := way[body]; twice {
				t.Fatalf("%q went two ways", body)
			} else {
				way[body] = i
			}
			if err := d.Ack(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := sub.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if len(way) != len(ms) {
		t.Fatalf("%d of %d messages arrived", len(way), len(ms))
	}
	return way
}

// A consistent hash splits as its weights say, native and emulated alike, sends
// one key one way, and moves few keys when a queue is added.
func TestConsistentHash(t *testing.T) {
	const keys = 3000
	for _, scheme := range []string{"mem", "nats", "redis", "amqp"} {
		t.Run(scheme, func(t *testing.T) {
			conn := open(t, testbroker.URL(t, scheme))
			declare(t, conn, hashed(4, nil))
			var ms []*polymq.Message
			for i := range keys {
				ms = append(ms, &polymq.Message{Key: fmt.Sprint("key.", i), Body: fmt.Append(nil, i)})
			}
			first := ways(t, conn, 4, ms)
			again := ways(t, conn, 4, ms)
			declare(t, conn, hashed(5, nil))
			more := ways(t, conn, 5, ms)
			moved := 0
			for body, way := range first {
				if again[body] != way {
					t.Fatalf("message %s went to queue %d, then to %d", body, way, again[body])
				}
				if more[body] != way {
					moved++
					if more[body] != 4 {
						t.Errorf("message %s moved from queue %d to %d, which is not the new one", body, way, more[body])
					}
				}
			}
			// Five standard deviations of a fair draw.
			near := func(what string, got int, share float64) {
				want := keys * share
				if math.Abs(float64(got)-want) > 5*math.Sqrt(want*(1-share)) {
					t.Errorf("%s: %d of %d keys, want about %.0f", what, got, keys, want)
				}
			}
			split := make([]int, 4)
			for _, way := range first {
				split[way]++
			}
			for i, n := range split {
				share := 0.2
				if i == 1 {
					share = 0.4
				}
				near(fmt.Sprint("queue ", i), n, share)
			}
			near("moved to a fifth queue", moved, 10.0/60)
			t.Logf("%v, and %d moved", split, moved)
		})
	}
}

// By a header, or a property, the routing key does not count.
func TestConsistentHashOf(t *testing.T) {
	for _, scheme := range []string{"mem", "nats", "redis", "amqp"} {
		t.Run(scheme, func(t *testing.T) {
			for name, args := range map[string]map[string]any{
				"header": {"hash-header": "customer"}, "correlation": {"hash-property": "correlation_id"}, "id": {"hash-property": "message_id"}, "time": {"hash-property": "timestamp"},
			} {
				conn := open(t, testbroker.URL(t, scheme))
				declare(t, conn, hashed(3, args))
				var ms []*polymq.Message
				for i := range 120 {
					who := i % 40
					m := &polymq.Message{Key: fmt.Sprint(i), Body: fmt.Append(nil, i)}
					switch name {
					case "header":
						m.Header = polymq.Header{"customer": fmt.Sprint("c", who)}
					case "correlation":
						m.CorrelationID = fmt.Sprint("c", who)
					case "id":
						m.ID = fmt.Sprint("c", i)
					case "time":
						m.Time = time.Unix(int64(1700000000+who), 0)
					}
					ms = append(ms, m)
				}
				way := ways(t, conn, 3, ms)
				seen := map[int]bool{}
				for i := range 120 {
					seen[way[fmt.Sprint(i)]] = true
					if name != "id" && way[fmt.Sprint(i)] != way[fmt.Sprint(i%40)] {
						t.Errorf("by %s, message %d went another way than %d", name, i, i%40)
					}
				}
				if len(seen) != 3 {
					t.Errorf("by %s, only %d of 3 queues got messages", name, len(seen))
				}
			}
		})
	}
}
