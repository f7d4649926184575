package main

import "github.com/polymq/polymq/routing"

// A sink is a queue and the binding that fills it.
type sink struct {
	name  string
	takes string // for people
	key   string // of a binding of the topic exchange
	args  map[string]any
}

var sinks = []sink{
	{name: "alerts", takes: "every error", key: "*.error"},
	{name: "auth", takes: "all of auth", key: "auth.#"},
	// All arguments must match; true is the bool, not the word.
	{name: "audit", takes: "audit, in the EU", args: map[string]any{"x-match": "all", "audit": true, "region": "eu"}},
	// One is enough; nil means that the header is there, whatever its value.
	{name: "review", takes: "paid, or slow", args: map[string]any{"x-match": "any", "paid": nil, "slow": true}},
}

func topology(prefix string) routing.Topology {
	tags := prefix + ".tags"
	t := routing.Topology{
		Exchanges: []routing.Exchange{{Name: prefix, Kind: routing.Topic}, {Name: tags, Kind: routing.Headers}},
		Bindings:  []routing.Binding{{Exchange: prefix, ToExchange: tags, Key: "#"}},
	}
	for _, s := range sinks {
		b := routing.Binding{Exchange: prefix, Queue: prefix + "." + s.name, Key: s.key}
		if s.args != nil {
			b.Exchange, b.Args = tags, s.args
		}
		t.Queues = append(t.Queues, routing.Queue{Name: b.Queue})
		t.Bindings = append(t.Bindings, b)
	}
	return t
}

// expect is how many lines each queue will get: package routing answers that
// without a broker.
func expect(t routing.Topology, exchange string) (map[string]int, error) {
	table, err := routing.NewTable(t)
	if err != nil {
		return nil, err
	}
	want := map[string]int{}
	for _, s := range services {
		for _, l := range s.lines {
			queues, err := table.Route(nil, exchange, s.name+"."+l.level, l.tags)
			if err != nil {
				return nil, err
			}
			for _, q := range queues {
				want[q]++
			}
		}
	}
	return want, nil
}
