package guides

import (
	"context"
	"slices"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var documents = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "documents", Kind: routing.Headers}},
	Queues:    []routing.Queue{{Name: "invoices-eu"}, {Name: "attention"}},
	Bindings: []routing.Binding{
		{Exchange: "documents", Queue: "invoices-eu", Args: map[string]any{
			"x-match": "all", "kind": "invoice", "region": "eu", // every one must match
		}},
		{Exchange: "documents", Queue: "attention", Args: map[string]any{
			"x-match": "any", "urgent": true, "error": nil, // one is enough; nil: the header is there
		}},
	},
}

func TestHeaders(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, documents); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "documents",
			&polymq.Message{Header: polymq.Header{"kind": "invoice", "region": "eu"}, Body: []byte("1")},
			&polymq.Message{Header: polymq.Header{"kind": "letter", "urgent": true}, Body: []byte("2")},
			&polymq.Message{Header: polymq.Header{"kind": "invoice", "region": "eu", "error": "no address"}, Body: []byte("3")})
		for q, want := range map[string][]string{"invoices-eu": {"1", "3"}, "attention": {"2", "3"}} {
			if got := take(t, ctx, conn, q, 2); !slices.Equal(got, want) {
				t.Errorf("%s has %q, want %q", q, got, want)
			}
		}
	})
}
