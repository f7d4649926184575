package routing_test

import (
	"fmt"
	"time"

	"github.com/polymq/polymq/routing"
)

var shop = routing.Topology{
	Exchanges: []routing.Exchange{
		{Name: "orders", Kind: routing.Topic, Alternate: "unrouted"},
		{Name: "unrouted", Kind: routing.Fanout},
		{Name: "by-region", Kind: routing.Headers},
	},
	Queues: []routing.Queue{
		{Name: "billing", Type: routing.Quorum, MaxAttempts: 5, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"},
		{Name: "europe", TTL: time.Hour, MaxLength: 1000},
		{Name: "dead"},
		{Name: "rest"},
	},
	Bindings: []routing.Binding{
		{Exchange: "orders", Queue: "billing", Key: "order.*.paid"},
		{Exchange: "orders", ToExchange: "by-region", Key: "order.#"},
		{Exchange: "by-region", Queue: "europe", Args: map[string]any{"region": "eu"}},
		{Exchange: "unrouted", Queue: "rest"},
	},
}

// A topology as a picture in Markdown.
func ExampleTopology_Mermaid() {
	fmt.Print(shop.Mermaid())
	// Output:
	// flowchart LR
	//     e0{{"by-region<br/>headers"}}
	//     e1{{"orders<br/>topic"}}
	//     e2{{"unrouted<br/>fanout"}}
	//     q3[("billing<br/>type quorum<br/>max_attempts 5")]
	//     q4[("dead")]
	//     q5[("europe<br/>ttl 1h0m0s<br/>max_length 1000")]
	//     q6[("rest")]
	//     e0 -->|"#123;#34;region#34;#58;#34;eu#34;#125;"| q5
	//     e1 -->|"order#46;#35;"| e0
	//     e1 -->|"order#46;#42;#46;paid"| q3
	//     e2 --> q6
	//     e1 -.->|"alternate"| e2
	//     q3 -.->|"dead letters"| q4
}

// A topology as a picture by Graphviz.
func ExampleTopology_DOT() {
	fmt.Print(shop.DOT())
	// Output:
	// digraph topology {
	// 	rankdir=LR;
	// 	node [fontname="sans-serif"];
	// 	edge [fontname="sans-serif"];
	// 	e0 [shape=hexagon, label="by-region\nheaders"];
	// 	e1 [shape=hexagon, label="orders\ntopic"];
	// 	e2 [shape=hexagon, label="unrouted\nfanout"];
	// 	q3 [shape=cylinder, label="billing\ntype quorum\nmax_attempts 5"];
	// 	q4 [shape=cylinder, label="dead"];
	// 	q5 [shape=cylinder, label="europe\nttl 1h0m0s\nmax_length 1000"];
	// 	q6 [shape=cylinder, label="rest"];
	// 	e0 -> q5 [label="{\"region\":\"eu\"}"];
	// 	e1 -> e0 [label="order.#"];
	// 	e1 -> q3 [label="order.*.paid"];
	// 	e2 -> q6;
	// 	e1 -> e2 [label="alternate", style=dashed];
	// 	q3 -> q4 [label="dead letters", style=dashed];
	// }
}

// What would have to change is known before it is.
func ExampleCompare() {
	stands := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing", TTL: time.Minute}, {Name: "old"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.paid"}},
	}
	want := routing.Topology{
		Exchanges: []routing.Exchange{{Name: "orders", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "billing", TTL: time.Hour}, {Name: "audit"}},
		Bindings:  []routing.Binding{{Exchange: "orders", Queue: "billing", Key: "order.paid"}, {Exchange: "orders", Queue: "audit", Key: "#"}},
	}
	plan := routing.Compare(stands, want)
	fmt.Println(plan)
	fmt.Println("done:", plan.Done())
	// Output:
	// create    queue "audit"
	// create    binding "orders" -> "audit", key "#"
	// conflict  queue "billing": TTL is 1m0s, asked for 1h0m0s
	// extra     queue "old"
	// plan: 2 to create, 1 in conflict, 1 extra
	// done: false
}
