package main

import (
	"strings"

	"github.com/polymq/polymq/routing"
)

// A route is a queue, the bindings that lead to it, and, in plain Go, which
// events these must bring: the program checks the one against the other.
type route struct {
	queue    string
	exchange string
	bindings []routing.Binding // without the names, which are the route's
	takes    string            // the bindings, for people
	want     func(event) bool
}

var routes = []route{
	{
		queue: "archive", exchange: "all", takes: "everything",
		bindings: []routing.Binding{{}},
		want:     func(event) bool { return true },
	},
	{
		queue: "installed", exchange: "by-key", takes: "status.installed.#",
		bindings: []routing.Binding{{Key: "status.installed.#"}},
		want:     func(e event) bool { return e.action == "status.installed" },
	},
	{
		queue: "brokers", exchange: "by-key", takes: "#.rabbitmq-server, #.redis-server",
		bindings: []routing.Binding{{Key: "#.rabbitmq-server"}, {Key: "#.redis-server"}},
		want:     func(e event) bool { return e.name == "rabbitmq-server" || e.name == "redis-server" },
	},
	{
		queue: "begun", exchange: "by-key", takes: "install.*.*, upgrade.#",
		bindings: []routing.Binding{{Key: "install.*.*"}, {Key: "upgrade.#"}},
		want: func(e event) bool {
			// A dot in a package's name makes one word more of the key.
			return e.action == "upgrade" || e.action == "install" && !strings.Contains(e.name, ".")
		},
	},
	{
		queue: "portable", exchange: "by-header", takes: "arch=all and action=configure",
		bindings: []routing.Binding{{Args: map[string]any{"x-match": "all", "arch": "all", "action": "configure"}}},
		want:     func(e event) bool { return e.arch == "all" && e.action == "configure" },
	},
	{
		queue: "watched", exchange: "by-header", takes: "action=upgrade or package=libc-bin",
		bindings: []routing.Binding{{Args: map[string]any{"x-match": "any", "action": "upgrade", "package": "libc-bin"}}},
		want:     func(e event) bool { return e.action == "upgrade" || e.name == "libc-bin" },
	},
}

// declaration is the whole topology: a fanout exchange that leads to a queue
// and to a topic and a headers exchange, which lead to the others.
func declaration(prefix string) routing.Topology {
	t := routing.Topology{
		Exchanges: []routing.Exchange{
			{Name: prefix + "all", Kind: routing.Fanout},
			{Name: prefix + "by-key", Kind: routing.Topic},
			{Name: prefix + "by-header", Kind: routing.Headers},
		},
		Bindings: []routing.Binding{
			{Exchange: prefix + "all", ToExchange: prefix + "by-key"},
			{Exchange: prefix + "all", ToExchange: prefix + "by-header"},
		},
	}
	for _, r := range routes {
		t.Queues = append(t.Queues, routing.Queue{Name: prefix + r.queue})
		for _, b := range r.bindings {
			b.Exchange, b.Queue = prefix+r.exchange, prefix+r.queue
			t.Bindings = append(t.Bindings, b)
		}
	}
	return t
}

// ids are the IDs of the events that the route must bring, in order.
func (r route) ids(events []event) []string {
	var ids []string
	for _, e := range events {
		if r.want(e) {
			ids = append(ids, e.id)
		}
	}
	return ids
}
