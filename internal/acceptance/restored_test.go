package acceptance_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

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
				Queues:    []routing.Queue{{Name: "passes"}, {Name: "lasts"}, {Name: "stays"}},
				Bindings:  []routing.Binding{bound("x", "passes", "old"), bound("x", "lasts", "kept"), bound("changed", "lasts", "old"), bound("x", "stays", "kept")},
			})
			for _, err := range []error{other.DeleteQueue(ctx, "passes", nil), other.DeleteExchange(ctx, "changed", nil)} {
				if err != nil {
					t.Fatal(err)
				}
			}
			declare(t, conn, routing.Topology{
				Exchanges: []routing.Exchange{exchange("changed", routing.Topic)},
				Queues:    []routing.Queue{{Name: "passes", Expires: time.Hour}},
				Bindings:  []routing.Binding{bound("x", "passes", "new"), bound("changed", "lasts", "new")},
			})
			sever()
			for at, want := range map[[2]string]error{
				{"x", "old"}: polymq.ErrUnroutable, {"x", "new"}: nil, {"x", "kept"}: nil,
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

// severed is a connection, and what loses it and returns when it is back.
func severed(t *testing.T, url string) (conn *polymq.Conn, sever func()) {
	t.Helper()
	cut := func() { mem.Sever(strings.TrimPrefix(url, "mem://")) }
	if !strings.HasPrefix(url, "mem:") {
		link := testbroker.Proxy(t, url)
		cut, url = link.Cut, link.URL()
	}
	states := make(chan polymq.State, 100)
	conn, err := polymq.Open(t.Context(), url, &polymq.Options{OnState: func(s polymq.State, _ error) { states <- s }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn, func() {
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
