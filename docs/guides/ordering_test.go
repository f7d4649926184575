package guides

import (
	"context"
	"fmt"
	"hash/fnv"
	"slices"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// One process at a time consumes it: the others wait to take over.
var ledger = routing.Queue{Name: "ledger", SingleActiveConsumer: true}

// Several queues, each in order, and each account in one of them.
const parts = 3

func accounts() routing.Topology {
	t := routing.Topology{Exchanges: []routing.Exchange{{Name: "accounts", Kind: routing.Direct}}}
	for i := range parts {
		q := routing.Queue{Name: fmt.Sprintf("accounts.%d", i), SingleActiveConsumer: true}
		t.Queues = append(t.Queues, q)
		t.Bindings = append(t.Bindings, routing.Binding{Exchange: "accounts", Queue: q.Name, Key: fmt.Sprint(i)})
	}
	return t
}

func partOf(account string) string {
	h := fnv.New32a()
	h.Write([]byte(account))
	return fmt.Sprint(h.Sum32() % parts)
}

func TestOrdering(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		top := accounts()
		top.Queues = append(top.Queues, ledger)
		if err := conn.Declare(ctx, top); err != nil {
			t.Fatal(err)
		}
		var msgs, booked []*polymq.Message
		for i := range 20 {
			body := []byte(fmt.Sprint(i))
			msgs = append(msgs, &polymq.Message{Key: partOf("ada"), Body: body})
			booked = append(booked, &polymq.Message{Key: "ledger", Body: body})
		}
		publish(t, conn, "accounts", msgs...)
		publish(t, conn, "", booked...)
		for _, q := range []string{"accounts." + partOf("ada"), "ledger"} {
			got := take(t, ctx, conn, q, 20)
			if !slices.Equal(got[:3], []string{"0", "1", "2"}) || got[19] != "19" {
				t.Errorf("%s brought %q", q, got)
			}
		}
	})
}
