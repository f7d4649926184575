package conformance

import (
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var nameRows = []row{
	{promise: 11, name: "names", run: anyName},
	{promise: 11, name: "keys", run: anyKey},
	{promise: 11, name: "alike", run: namesAlike},
	{promise: 11, name: "illegal", run: illegalNames},
	{promise: 11, name: "predeclared", run: predeclared},
	{promise: 11, name: "reserved", run: reserved},
}

// legalNames are names that brokers are known to stumble over.
func legalNames() []string {
	return []string{
		"a", "with space", " lead and trail ", "dotted.name.", ".", "..", "a..b", "*", ">", "a.*", "a.>", "#", "%", "100%", "%2E", "{}", "{tag}", "a{b}c", "[x]",
		"a/b", `a\b`, "a:b", "a;b", "a,b", "a=b&c", "a?b", "a@b", "a|b", "$JS.API", "_INBOX", "-", "--", "~", "'quoted'", `"quoted"`, "`", "<a>", "(a)",
		"ü", "日本語.キュー", "😀", "é", "e\u0301", "NULL", "null", "amqx", "AMQ.x", "polymq",
		strings.Repeat("n", 255), strings.Repeat("ü", 127), strings.Repeat(".", 255), strings.Repeat("*", 100),
	}
}

// anyName uses each name for an exchange, a queue and a key at once.
func anyName(e *env) {
	c, other := e.open(), e.open()
	var all routing.Topology
	for _, name := range legalNames() {
		t := topology(routing.Exchange{Name: name, Kind: routing.Direct}, name, to(name, name, name))
		all.Exchanges, all.Queues, all.Bindings = append(all.Exchanges, t.Exchanges...), append(all.Queues, t.Queues...), append(all.Bindings, t.Bindings...)
	}
	e.must(c.Declare(e.ctx, all), "Declare of %d names", len(all.Queues))
	if c.Features().Has(polymq.FeatureTopology) {
		e.sameTopology(other, all)
	}
	for _, q := range all.Queues {
		e.publish(other, q.Name, msg(q.Name, "through "+q.Name))
		e.publish(other, "", msg(q.Name, "straight to "+q.Name))
	}
	for _, q := range all.Queues {
		ds := e.drain(other, q.Name)
		e.equalBodies(q.Name, ds, []string{"through " + q.Name, "straight to " + q.Name})
		if d := ds[0]; d.Exchange != q.Name || d.Queue != q.Name || d.Key != q.Name {
			e.Errorf("%q arrived from exchange %q, queue %q, key %q", q.Name, d.Exchange, d.Queue, d.Key)
		}
	}
	for _, q := range all.Queues {
		e.must(other.DeleteQueue(e.ctx, q.Name, nil), "DeleteQueue(%q)", q.Name)
		e.must(other.DeleteExchange(e.ctx, q.Name, nil), "DeleteExchange(%q)", q.Name)
	}
	if c.Features().Has(polymq.FeatureTopology) {
		e.sameTopology(c, routing.Topology{})
	}
}

// anyKey routes by keys that are not names.
func anyKey(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", "other")
	keys := append(legalNames(), "", strings.Repeat("k", 254)+"1", strings.Repeat("k", 254)+"2")
	var bs []routing.Binding
	for _, k := range keys {
		bs = append(bs, to("x", "q", k))
	}
	e.must(c.Bind(e.ctx, bs...), "Bind of %d keys", len(bs))
	for _, k := range keys {
		e.publish(c, "x", msg(k, "by "+k))
	}
	ds := e.drain(c, "q")
	if len(ds) != len(keys) {
		e.Fatalf("got %d messages, want %d", len(ds), len(keys))
	}
	for i, d := range ds {
		if d.Key != keys[i] || string(d.Body) != "by "+keys[i] {
			e.Errorf("key %q arrived as %q, with body %q", keys[i], d.Key, d.Body)
		}
	}
}

// namesAlike has names that a careless escape takes for one.
func namesAlike(e *env) {
	c, other := e.open(), e.open()
	names := []string{
		"a.b", "a_b", "a b", "a-b", "a%2Eb", "a%2eb", "A.B", "a/b", "a:b", "a=2Eb", "a\\.b", "é", "e\u0301",
		strings.Repeat("l", 254) + "1", strings.Repeat("l", 254) + "2", strings.Repeat("l", 200), "{a}", "a",
	}
	for _, n := range names {
		e.declare(c, n)
	}
	for _, n := range names {
		e.publish(other, "", msg(n, "for "+n))
	}
	for _, n := range names {
		e.has(other, n, "for "+n)
	}
}

func illegalNames(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q")
	p := e.publisher(c, "x")
	for _, name := range []string{strings.Repeat("n", 256), strings.Repeat("ü", 128), "a\x00b", "a\nb", "a\x7fb", "\xff\xfe", "\t"} {
		for what, err := range map[string]error{
			"Declare of a queue":     c.Declare(e.ctx, topology(name)),
			"Declare of an exchange": c.Declare(e.ctx, topology(routing.Exchange{Name: name, Kind: routing.Fanout})),
			"Bind with a key":        c.Bind(e.ctx, to("x", "q", name)),
			"Publish with a key":     p.Publish(e.short(), msg(name, "")),
			"DeleteQueue":            c.DeleteQueue(e.ctx, name, nil),
		} {
			if !is(err, polymq.ErrInvalid) {
				e.Errorf("%s %.20q of %d bytes: got %v, want ErrInvalid", what, name, len(name), err)
			}
		}
	}
	for what, err := range map[string]error{
		"a queue without a name":                 c.Declare(e.ctx, topology("")),
		"an exchange without a name":             c.Declare(e.ctx, topology(routing.Exchange{Kind: routing.Direct})),
		"an exchange without a kind":             c.Declare(e.ctx, topology(routing.Exchange{Name: "y"})),
		"a binding to nothing":                   c.Bind(e.ctx, routing.Binding{Exchange: "x"}),
		"a binding to a queue and an exchange":   c.Bind(e.ctx, routing.Binding{Exchange: "x", Queue: "q", ToExchange: "x"}),
		"an unknown x-match":                     c.Declare(e.ctx, topology(routing.Exchange{Name: "h", Kind: routing.Headers}, routing.Binding{Exchange: "h", Queue: "q", Args: map[string]any{"x-match": "some"}})),
		"a topic key with a third #":             c.Declare(e.ctx, topology(routing.Exchange{Name: "t", Kind: routing.Topic}, to("t", "q", "#.a.#.b.#"))),
		"a dead-letter key without the exchange": c.Declare(e.ctx, topology(routing.Queue{Name: "r", DeadLetterKey: "k"})),
	} {
		if !is(err, polymq.ErrInvalid) {
			e.Errorf("%s: got %v, want ErrInvalid", what, err)
		}
	}
	// Nothing of a topology with a fault is made.
	e.mustBe(c.Declare(e.ctx, topology("fine", "not\nfine")), "Declare with one illegal name", polymq.ErrInvalid)
	e.mustBe(c.Verify(e.ctx, topology("fine")), "Verify after that", polymq.ErrNotFound)
}

func predeclared(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	for _, x := range []routing.Exchange{
		{Name: "amq.direct", Kind: routing.Direct}, {Name: "amq.topic", Kind: routing.Topic}, {Name: "amq.fanout", Kind: routing.Fanout},
		{Name: "amq.headers", Kind: routing.Headers}, {Name: "amq.match", Kind: routing.Headers},
	} {
		e.must(c.Verify(e.ctx, topology(x)), "Verify of %s", x.Name)
		e.must(c.Declare(e.ctx, topology(x)), "Declare of %s as it is", x.Name)
		e.mustBe(e.try(other, x.Name, &polymq.Message{Key: "k", Header: polymq.Header{"h": 1}}), "Publish to "+x.Name+" without bindings", polymq.ErrUnroutable)
		e.must(c.Bind(e.ctx, routing.Binding{Exchange: x.Name, Queue: "q", Key: "k", Args: map[string]any{"h": 1}}), "Bind to %s", x.Name)
		e.publish(other, x.Name, &polymq.Message{Key: "k", Header: polymq.Header{"h": 1}, Body: []byte(x.Name)})
		e.mustBe(c.DeleteExchange(e.ctx, x.Name, nil), "DeleteExchange of "+x.Name, polymq.ErrInvalid, polymq.ErrPermission)
	}
	e.has(c, "q", "amq.direct", "amq.topic", "amq.fanout", "amq.headers", "amq.match")
}

func reserved(e *env) {
	c := e.open()
	e.declare(c, "q")
	for what, err := range map[string]error{
		"Declare of queue amq.q":                      c.Declare(e.ctx, topology("amq.q")),
		"Declare of exchange amq.x":                   c.Declare(e.ctx, topology(routing.Exchange{Name: "amq.x", Kind: routing.Direct})),
		"Declare of amq.direct as fanout":             c.Declare(e.ctx, topology(routing.Exchange{Name: "amq.direct", Kind: routing.Fanout})),
		"Declare of amq.default":                      c.Declare(e.ctx, topology(routing.Exchange{Name: routing.DefaultExchange, Kind: routing.Direct})),
		"Bind to the default exchange":                c.Bind(e.ctx, to("", "q", "k")),
		"Bind to the default exchange under its name": c.Bind(e.ctx, to(routing.DefaultExchange, "q", "k")),
		"DeleteExchange of the default exchange":      c.DeleteExchange(e.ctx, "", nil),
	} {
		if !is(err, polymq.ErrInvalid, polymq.ErrPermission, polymq.ErrConflict) {
			e.Errorf("%s: got %v, want a refusal", what, err)
		}
	}
	e.publish(c, "", msg("q", "as ever"))
	e.has(c, "q", "as ever")
}
