package routing

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

func TestCompare(t *testing.T) {
	stands := Topology{
		Exchanges: []Exchange{{Name: "orders", Kind: Topic}, {Name: "old", Kind: Fanout}},
		Queues: []Queue{
			{Name: "billing", Type: Quorum}, {Name: "audit", TTL: time.Minute, MaxLength: 10, Overflow: DropHead}, {Name: "priorities", MaxPriority: 5},
			{Name: "mine", Exclusive: true}, {Name: "left", Transient: true},
		},
		Bindings: []Binding{{Exchange: "orders", Queue: "billing", Key: "a", Args: map[string]any{"n": 1}}, {Exchange: "amq.topic", Queue: "left"}},
	}
	want := Topology{
		Exchanges: []Exchange{{Name: "orders", Kind: Direct, Alternate: "unrouted"}, {Name: "new", Kind: Fanout}, {Name: "amq.topic", Kind: Topic}, {Name: "new", Kind: Fanout}},
		Queues: []Queue{
			{Name: "billing"}, {Name: "audit", TTL: time.Hour, MaxLength: 10}, {Name: "priorities", MaxPriority: 5, Type: Quorum},
			{Name: "mine", Exclusive: true, Transient: true}, {Name: "z"}, {Name: "a"},
		},
		Bindings: []Binding{{Exchange: "orders", Queue: "billing", Key: "a", Args: map[string]any{"n": int64(1)}}, {Exchange: "orders", Queue: "billing", Key: "a", Args: map[string]any{"n": 1.0}}},
	}
	c := Compare(stands, want)
	var got []string
	for _, s := range c.Conflicts {
		got = append(got, s.String())
	}
	for _, wanted := range []string{
		`exchange "orders": Kind is "topic", asked for "direct", Alternate is "", asked for "unrouted"`,
		`queue "audit": TTL is 1m0s, asked for 1h0m0s`,
		`queue "priorities": Type is "classic", asked for "quorum"`,
	} {
		if !slices.Contains(got, wanted) {
			t.Errorf("no conflict %s in %q", wanted, got)
		}
	}
	if len(got) != 3 {
		t.Errorf("conflicts: %q", got)
	}
	for _, pair := range []struct{ got, want Topology }{
		{c.Create, Topology{Exchanges: []Exchange{{Name: "new", Kind: Fanout}}, Queues: []Queue{{Name: "a"}, {Name: "z"}}, Bindings: want.Bindings[1:]}},
		{c.Extra, Topology{Exchanges: stands.Exchanges[1:], Queues: stands.Queues[4:], Bindings: stands.Bindings[1:]}},
	} {
		if fmt.Sprint(pair.got) != fmt.Sprint(pair.want) {
			t.Errorf("got %v\nwant %v", pair.got, pair.want)
		}
	}
	const text = `create    exchange "new", kind "fanout"
create    queue "a"
create    queue "z"
create    binding "orders" -> "billing", key "a", args {"n":1.0}
conflict  exchange "orders": Kind is "topic", asked for "direct", Alternate is "", asked for "unrouted"
conflict  queue "audit": TTL is 1m0s, asked for 1h0m0s
conflict  queue "priorities": Type is "classic", asked for "quorum"
extra     exchange "old", kind "fanout"
extra     queue "left", transient true
extra     binding "amq.topic" -> "left", key ""
plan: 4 to create, 3 in conflict, 3 extra`
	if c.String() != text {
		t.Errorf("the plan reads\n%v\nwant\n%s", c, text)
	}
	if c.Done() || !Compare(stands, Topology{}).Done() {
		t.Error("Done is wrong")
	}
	if same := Compare(want, want); !same.Done() || len(same.Conflicts)+len(same.Create.Queues)+len(same.Extra.Bindings) != 0 {
		t.Errorf("a topology differs from itself: %+v", same)
	}
}
