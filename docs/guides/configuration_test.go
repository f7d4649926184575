package guides

import (
	"context"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/definitions"
	"github.com/polymq/polymq/routing"
)

// connected opens the broker that POLYMQ_URL names, or one in memory.
func connected(ctx context.Context) (*polymq.Conn, error) {
	return polymq.Open(ctx, polymq.URLFromEnv("mem://"), nil)
}

// lay makes the exchanges, queues and bindings of a RabbitMQ on any broker. What
// could not be carried is no error, but somebody should read it.
func lay(ctx context.Context, conn *polymq.Conn, file []byte) ([]definitions.Loss, error) {
	topology, lost, err := definitions.Import(file, nil) // of several vhosts, say which
	if err != nil {
		return nil, err
	}
	return lost, conn.Declare(ctx, topology)
}

func picture(ctx context.Context, conn *polymq.Conn) (string, error) {
	topology, err := conn.Topology(ctx)
	return topology.Mermaid(), err
}

func TestConfiguration(t *testing.T) {
	exported, lost, err := definitions.Export(routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.*.paid"}},
	}, nil)
	if err != nil || len(lost) > 0 {
		t.Fatal(err, lost)
	}
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		fresh(t, func(t *testing.T, ctx context.Context, url string) {
			t.Setenv("POLYMQ_URL", url)
			conn, err := connected(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.WithoutCancel(ctx))
			if lost, err := lay(ctx, conn, exported); err != nil || len(lost) > 0 {
				t.Fatal(err, lost)
			}
			publish(t, conn, "orders", &polymq.Message{Key: "order.eu.paid", Body: []byte("17 EUR")})
			if got := take(t, ctx, conn, "billing", 1); got[0] != "17 EUR" {
				t.Errorf("billing got %q", got)
			}
			if text, err := picture(ctx, conn); err != nil || !strings.Contains(text, "billing") {
				t.Errorf("the picture is %s, %v", text, err)
			}
		}, scheme)
	}
}
