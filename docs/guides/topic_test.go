package guides

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var weather = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "weather", Kind: routing.Topic}},
	Queues:    []routing.Queue{{Name: "storms"}, {Name: "norway"}, {Name: "all"}},
	Bindings: []routing.Binding{
		{Exchange: "weather", Queue: "storms", Key: "*.*.storm"}, // * is one word
		{Exchange: "weather", Queue: "norway", Key: "no.#"},      // # is any number of words, none included
		{Exchange: "weather", Queue: "all", Key: "#"},
	},
}

func TestTopic(t *testing.T) {
	everywhere(t, func(t *testing.T, ctx context.Context, conn *polymq.Conn) {
		if err := conn.Declare(ctx, weather); err != nil {
			t.Fatal(err)
		}
		publish(t, conn, "weather",
			&polymq.Message{Key: "no.oslo.storm", Body: []byte("1")},
			&polymq.Message{Key: "de.kiel.storm", Body: []byte("2")},
			&polymq.Message{Key: "no", Body: []byte("3")})
		for q, want := range map[string][]string{"storms": {"1", "2"}, "norway": {"1", "3"}, "all": {"1", "2", "3"}} {
			if got := take(t, ctx, conn, q, len(want)); !slices.Equal(got, want) {
				t.Errorf("%s has %q, want %q", q, got, want)
			}
		}
		// A binding made while the program runs is in force when Bind returns.
		if err := conn.Unbind(ctx, routing.Binding{Exchange: "weather", Queue: "all", Key: "#"}); err != nil {
			t.Fatal(err)
		}
		pub, err := conn.Publisher(ctx, "weather", nil)
		if err != nil {
			t.Fatal(err)
		}
		err = pub.Publish(ctx, &polymq.Message{Key: "de.kiel.sun"})
		if errors.Is(err, polymq.ErrUnroutable) {
			err = nil // nobody wants it: this call says so
		} else {
			t.Error("it was routed")
		}
		if err != nil {
			t.Error(err)
		}
	})
}

// Package routing answers without a broker which queues take a message.
func TestTopicTable(t *testing.T) {
	table, err := routing.NewTable(weather)
	if err != nil {
		t.Fatal(err)
	}
	queues, err := table.Route(nil, "weather", "no.oslo.storm", nil)
	if err != nil {
		t.Fatal(err)
	}
	if slices.Sort(queues); !slices.Equal(queues, []string{"all", "norway", "storms"}) {
		t.Errorf("got %q", queues)
	}
}
