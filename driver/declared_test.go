package driver_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// What was unbound, in whatever form its arguments are given, is not made anew; and
// what is, is as it was declared, whatever has become of the caller's maps.
func TestDeclaredArguments(t *testing.T) {
	binding := func(n any) routing.Binding {
		return routing.Binding{Exchange: "x", Queue: "q", Args: map[string]any{"n": n, "list": []any{"a", []byte("b")}}}
	}
	var d driver.Declared
	b := binding(1)
	d.Add(routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Headers}},
		Queues:    []routing.Queue{{Name: "q"}},
		Bindings:  []routing.Binding{b, binding(int64(1)), binding(1.0)},
	})
	b.Args["n"], b.Args["list"].([]any)[0] = 2, "changed"
	want := []routing.Binding{binding(1.0), binding(int64(1))}
	if got := d.Topology().Bindings; !reflect.DeepEqual(got, want) {
		t.Errorf("got  %#v\nwant %#v", got, want)
	}
	d.Unbind([]routing.Binding{binding(int64(1)), binding(float32(1))})
	if got := d.Topology().Bindings; len(got) > 0 {
		t.Errorf("left: %v", got)
	}
	if d.Empty() {
		t.Error("the exchange and the queue are gone")
	}
}

// A queue that can only be another one has none of the old bindings; where brokers may
// take it for the same it keeps them.
func TestDeclaredOtherwise(t *testing.T) {
	for _, c := range []struct {
		name  string
		queue routing.Queue
		kept  int
	}{
		{"the same", routing.Queue{Name: "q", Overflow: routing.DropHead}, 1},
		{"Type", routing.Queue{Name: "q", Type: routing.Quorum}, 1},
		{"Args", routing.Queue{Name: "q", Args: map[string]any{"x-consumer-timeout": 1000}}, 1},
		{"Transient", routing.Queue{Name: "q", Transient: true}, 0},
		{"TTL", routing.Queue{Name: "q", TTL: time.Hour}, 0},
		{"MaxLength", routing.Queue{Name: "q", MaxLength: 10}, 0},
		{"DeadLetterExchange", routing.Queue{Name: "q", DeadLetterExchange: "x"}, 0},
		{"Expires", routing.Queue{Name: "q", Expires: time.Hour}, 0},
	} {
		var d driver.Declared
		d.Add(routing.Topology{Queues: []routing.Queue{{Name: "q"}}, Bindings: []routing.Binding{{Exchange: "x", Queue: "q"}}})
		d.Add(routing.Topology{Queues: []routing.Queue{c.queue}})
		if got := len(d.Topology().Bindings); got != c.kept {
			t.Errorf("%s: %d bindings, want %d", c.name, got, c.kept)
		}
	}
}
