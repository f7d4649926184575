package polymqtest_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/polymqtest"
	"github.com/polymq/polymq/routing"
)

// Which way a message takes through a consistent hash is each broker's own.
func TestSettledBehindAHash(t *testing.T) {
	onEach(t, func(t *testing.T, b *polymqtest.Broker) {
		conn := b.Open(nil)
		b.Declare(conn, routing.Topology{
			Exchanges: []routing.Exchange{{Name: "hash", Kind: routing.ConsistentHash}},
			Queues:    []routing.Queue{{Name: "billing"}, {Name: "stock"}},
			Bindings:  []routing.Binding{{Exchange: "hash", Queue: "billing", Key: "1"}, {Exchange: "hash", Queue: "stock", Key: "1"}},
		})
		for _, queue := range []string{"billing", "stock"} {
			serve(t, conn, queue, atOnce, func(context.Context, *polymq.Delivery) error { return nil })
		}
		pub := publisher(t, conn, "hash")
		for i := range 20 {
			ok(t, pub.Publish(t.Context(), &polymq.Message{Key: strconv.Itoa(i)}))
		}
		b.Settled(conn)
	})
}
