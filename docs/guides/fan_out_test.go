package guides

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// Each department has a queue, and each gets every order.
var departments = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Fanout}},
	Queues:    []routing.Queue{{Name: "billing"}, {Name: "shipping"}},
	Bindings: []routing.Binding{
		{Exchange: "orders", Queue: "billing"},
		{Exchange: "orders", Queue: "shipping"},
	},
}

// listen gets what is published from now on, in this process; its queue ends
// with it.
func listen(ctx context.Context, conn *polymq.Conn) (*polymq.Subscriber, error) {
	return conn.SubscribeTemporary(ctx, nil, routing.Binding{Exchange: "orders"})
}

func TestFanOut(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, departments); err != nil {
			t.Fatal(err)
		}
		here, err := listen(ctx, conn)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "orders", &polymq.Message{Body: []byte("1")}, &polymq.Message{Body: []byte("2")})
		for _, q := range []string{"billing", "shipping"} {
			if got := take(t, ctx, conn, q, 2); !slices.Equal(got, []string{"1", "2"}) {
				t.Errorf("%s has %q", q, got)
			}
		}
		for range 2 {
			d, err := here.Receive(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Ack(ctx); err != nil {
				t.Fatal(err)
			}
		}
		name := here.Queue()
		if err := here.Close(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Subscriber(ctx, name, nil); !errors.Is(err, polymq.ErrNotFound) {
			t.Errorf("after its subscriber the queue: %v", err)
		}
	})
}
