package conformance

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var routingRows = []row{
	{promise: 12, name: "default-exchange", run: routeDefault},
	{promise: 12, name: "direct", run: routeDirect},
	{promise: 12, name: "fanout", run: routeFanout},
	{promise: 12, name: "topic", run: routeTopic},
	{promise: 12, name: "headers-match", run: routeHeadersMatch},
	{promise: 12, name: "headers-types", run: routeHeadersTypes},
	{promise: 12, name: "between-exchanges", run: routeBetweenExchanges},
	{promise: 12, name: "cycles", run: routeCycles},
	{promise: 12, name: "alternate", run: routeAlternate},
	{promise: 12, name: "cc-bcc", run: routeCopies},
	{promise: 12, name: "recorded", run: routeRecorded},
}

// routes publishes a message and wants it in these queues, each of which it
// empties; none of them means ErrUnroutable. All queues of the row are looked
// at.
func (e *env) routes(c *polymq.Conn, exchange string, m *polymq.Message, queues []string, want ...string) {
	e.Helper()
	what := fmt.Sprintf("exchange %q, key %q, headers %v", exchange, m.Key, m.Header)
	m.Body = []byte(what)
	err := e.try(c, exchange, m)
	if len(want) == 0 && !is(err, polymq.ErrUnroutable) || len(want) > 0 && err != nil {
		e.Errorf("%s: got %v, want it in %q", what, err, want)
	}
	for _, q := range queues {
		copies := 0
		for _, d := range e.drain(c, q) {
			if string(d.Body) != what {
				e.Fatalf("queue %q has a message that nobody sent there: %q", q, d.Body)
			}
			copies++
		}
		wanted := 0
		if slices.Contains(want, q) {
			wanted = 1
		}
		if copies != wanted {
			e.Errorf("%s: queue %q got %d copies, want %d", what, q, copies, wanted)
		}
	}
}

func routeDefault(e *env) {
	c := e.open()
	queues := []string{"a", "a.b", "*"}
	e.declare(c, "a", "a.b", "*")
	e.routes(c, "", msg("a", ""), queues, "a")
	e.routes(c, "", msg("a.b", ""), queues, "a.b")
	e.routes(c, "", msg("*", ""), queues, "*")
	e.routes(c, "", msg("b", ""), queues)
	e.routes(c, "", &polymq.Message{Key: "b", Header: polymq.Header{"CC": []any{"a"}}}, queues, "a")
	e.publish(c, "", msg("a", "to see where from"))
	if d := e.receive(e.subscriber(c, "a", 1)); d.Exchange != "" || d.Key != "a" {
		e.Errorf("what was published to the default exchange arrived from %q with key %q", d.Exchange, d.Key)
	}
}

func routeDirect(e *env) {
	c := e.open()
	queues := []string{"p", "q"}
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "p", "q", to("x", "p", "k"), to("x", "q", "k"), to("x", "p", "*"), to("x", "q", ""))
	e.routes(c, "x", msg("k", ""), queues, "p", "q")
	e.routes(c, "x", msg("*", ""), queues, "p")
	e.routes(c, "x", msg("", ""), queues, "q")
	e.routes(c, "x", msg("K", ""), queues)
	e.routes(c, "x", msg("k ", ""), queues)
}

func routeFanout(e *env) {
	c := e.open()
	queues := []string{"p", "q", "r"}
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "p", "q", "r", to("x", "p", "k"), to("x", "q", "other"))
	e.routes(c, "x", msg("k", ""), queues, "p", "q")
	e.routes(c, "x", &polymq.Message{Key: "whatever", Header: polymq.Header{"h": 1}}, queues, "p", "q")
}

// routeTopic has RabbitMQ's own answers for keys with empty words.
func routeTopic(e *env) {
	c := e.open()
	table := []struct {
		key     string
		matches string
	}{
		{"", "#,,#.#"},
		{"a", "#,*,a,a.#,#.#,*.#,#.*,a.#.#"},
		{"a.b", "#,a.*,a.#,#.b,a.#.b,*.*,#.#,*.#,#.*,a.#.#"},
		{"a.c.c.b", "#,a.#,#.b,a.#.b,#.#,*.#,#.*,a.#.#"},
		{"a..b", "#,a.#,#.b,a.#.b,#.#,a..b,a.*.b,*.#,#.*,a.#.#"},
		{".", "#,*.*,#.#,*.#,#.*"},
		{"a.", "#,a.*,a.#,*.*,#.#,*.#,#.*,a.,a.#.#"},
		{".a", "#,*.*,#.#,*.#,#.*,.a"},
		{"..", "#,#.#,*.#,#.*"},
		{"a*", "#,*,#.#,*.#,#.*,a*"},
	}
	patterns := []string{"#", "*", "", "a", "a.*", "a.#", "#.b", "a.#.b", "*.*", "#.#", "a..b", "a.*.b", "*.#", "#.*", "a.", ".a", "a*", "a.#.#"}
	t := topology(routing.Exchange{Name: "x", Kind: routing.Topic})
	for _, p := range patterns {
		q := "q " + p
		t.Queues = append(t.Queues, routing.Queue{Name: q, Transient: true})
		t.Bindings = append(t.Bindings, to("x", q, p))
	}
	e.must(c.Declare(e.ctx, t), "Declare")
	want := map[string][]string{}
	for _, row := range table {
		m := msg(row.key, "key "+row.key)
		e.publish(c, "x", m)
		for p := range strings.SplitSeq(row.matches, ",") {
			want[p] = append(want[p], string(m.Body))
		}
	}
	for _, p := range patterns {
		e.has(c, "q "+p, want[p]...)
	}
}

func routeHeadersMatch(e *env) {
	c := e.open()
	bind := func(q, match string, args map[string]any) routing.Binding {
		if match != "" {
			args["x-match"] = match
		}
		return routing.Binding{Exchange: "x", Queue: q, Args: args}
	}
	queues := []string{"all", "default", "any", "all-with-x", "any-with-x", "presence", "none"}
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Headers}, "all", "default", "any", "all-with-x", "any-with-x", "presence", "none", "always",
		bind("all", "all", map[string]any{"a": "1", "b": "2", "x-c": "ignored"}),
		bind("default", "", map[string]any{"a": "1", "b": "2"}),
		bind("any", "any", map[string]any{"a": "1", "b": "2", "x-c": "3"}),
		bind("all-with-x", "all-with-x", map[string]any{"a": "1", "x-c": "3"}),
		bind("any-with-x", "any-with-x", map[string]any{"a": "0", "x-c": "3"}),
		bind("presence", "all", map[string]any{"here": nil}),
		bind("none", "any", map[string]any{}),
	)
	with := func(h polymq.Header) *polymq.Message { return &polymq.Message{Key: "ignored", Header: h} }
	e.routes(c, "x", with(polymq.Header{"a": "1", "b": "2"}), queues, "all", "default", "any")
	e.routes(c, "x", with(polymq.Header{"a": "1", "b": "2", "more": "3"}), queues, "all", "default", "any")
	e.routes(c, "x", with(polymq.Header{"a": "1"}), queues, "any")
	e.routes(c, "x", with(polymq.Header{"a": "1", "b": "3"}), queues, "any")
	e.routes(c, "x", with(polymq.Header{"x-c": "3"}), queues, "any-with-x")
	e.routes(c, "x", with(polymq.Header{"a": "1", "x-c": "3"}), queues, "any", "all-with-x", "any-with-x")
	e.routes(c, "x", with(polymq.Header{"here": int64(5)}), queues, "presence")
	e.routes(c, "x", with(polymq.Header{"here": nil}), queues, "presence")
	e.routes(c, "x", with(polymq.Header{"a": "2", "b": "1"}), queues)
	e.routes(c, "x", with(nil), queues)

	// No arguments at all: "all" is always true.
	e.must(c.Bind(e.ctx, routing.Binding{Exchange: "x", Queue: "always"}), "Bind without arguments")
	e.routes(c, "x", with(nil), append(queues, "always"), "always")
}

func routeHeadersTypes(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Headers})
	values := map[string]any{"int": 1, "text": "1", "true": true, "word": "true", "float": 2.5, "zero": 0, "empty": "", "false": false}
	var queues []string
	for q, v := range values {
		queues = append(queues, q)
		e.declare(c, q, routing.Binding{Exchange: "x", Queue: q, Args: map[string]any{"v": v}})
	}
	for q, v := range values {
		e.routes(c, "x", &polymq.Message{Header: polymq.Header{"v": v}}, queues, q)
	}
	e.routes(c, "x", &polymq.Message{Header: polymq.Header{"v": int8(1)}}, queues, "int")
	e.routes(c, "x", &polymq.Message{Header: polymq.Header{"v": int64(1)}}, queues, "int")
	e.routes(c, "x", &polymq.Message{Header: polymq.Header{"v": []byte("1")}}, queues, "text")
	e.routes(c, "x", &polymq.Message{Header: polymq.Header{"v": nil}}, queues)
	e.routes(c, "x", &polymq.Message{Header: polymq.Header{"V": "1"}}, queues)
}

func routeBetweenExchanges(e *env) {
	c := e.open()
	queues := []string{"q", "r"}
	e.declare(c, routing.Exchange{Name: "in", Kind: routing.Topic}, routing.Exchange{Name: "mid", Kind: routing.Direct}, routing.Exchange{Name: "out", Kind: routing.Headers}, "q", "r",
		routing.Binding{Exchange: "in", ToExchange: "mid", Key: "a.#"}, routing.Binding{Exchange: "mid", ToExchange: "out", Key: "a.b"},
		routing.Binding{Exchange: "out", Queue: "q", Args: map[string]any{"h": "v"}}, to("mid", "r", "a.c"))
	hit := polymq.Header{"h": "v"}
	// The key and the headers are the message's own at every exchange.
	e.routes(c, "in", &polymq.Message{Key: "a.b", Header: hit}, queues, "q")
	e.routes(c, "in", &polymq.Message{Key: "a.b"}, queues)
	e.routes(c, "in", &polymq.Message{Key: "a.c"}, queues, "r")
	e.routes(c, "in", &polymq.Message{Key: "b.a", Header: hit}, queues)
	e.routes(c, "mid", &polymq.Message{Key: "a.b", Header: hit}, queues, "q")
	e.routes(c, "out", &polymq.Message{Key: "x", Header: hit}, queues, "q")
	e.publish(c, "in", &polymq.Message{Key: "a.b", Header: hit})
	if d := e.receive(e.subscriber(c, "q", 1)); d.Exchange != "in" || d.Key != "a.b" {
		e.Errorf("arrived from exchange %q with key %q, want in, a.b: where it was published", d.Exchange, d.Key)
	}
}

func routeCycles(e *env) {
	c := e.open()
	queues := []string{"q"}
	e.declare(c, routing.Exchange{Name: "a", Kind: routing.Fanout}, routing.Exchange{Name: "b", Kind: routing.Fanout}, routing.Exchange{Name: "c", Kind: routing.Fanout}, "q",
		routing.Binding{Exchange: "a", ToExchange: "b"}, routing.Binding{Exchange: "b", ToExchange: "c"}, routing.Binding{Exchange: "c", ToExchange: "a"},
		routing.Binding{Exchange: "a", ToExchange: "a"})
	for _, x := range []string{"a", "b", "c"} {
		e.routes(c, x, msg("k", ""), queues)
	}
	e.must(c.Bind(e.ctx, to("b", "q", "")), "Bind")
	for _, x := range []string{"a", "b", "c"} {
		e.routes(c, x, msg("k", ""), queues, "q")
	}
}

func routeAlternate(e *env) {
	c := e.open()
	queues := []string{"q", "r", "s"}
	e.declare(c,
		routing.Exchange{Name: "x", Kind: routing.Direct, Alternate: "alt"}, routing.Exchange{Name: "alt", Kind: routing.Topic, Alternate: "last"},
		routing.Exchange{Name: "last", Kind: routing.Fanout, Alternate: "x"}, routing.Exchange{Name: "empty", Kind: routing.Fanout}, "q", "r", "s",
		to("x", "q", "k"), to("alt", "r", "r.*"), routing.Binding{Exchange: "x", ToExchange: "empty", Key: "leads nowhere"})
	e.routes(c, "x", msg("k", ""), queues, "q")
	e.routes(c, "x", msg("r.1", ""), queues, "r")
	e.routes(c, "x", msg("r", ""), queues)
	// A binding that matches keeps the alternate out, even where it leads nowhere.
	e.must(c.Bind(e.ctx, to("last", "s", "")), "Bind")
	e.routes(c, "x", msg("r", ""), queues, "s")
	e.routes(c, "x", msg("leads nowhere", ""), queues)
	e.routes(c, "last", msg("k", ""), queues, "s")
	e.must(c.Unbind(e.ctx, to("last", "s", "")), "Unbind")
	e.routes(c, "last", msg("k", ""), queues, "q") // round the cycle to x

	e.declare(c, routing.Exchange{Name: "y", Kind: routing.Direct, Alternate: "missing"})
	e.routes(c, "y", msg("k", ""), queues)
}

// routeCopies shows the further keys, and what of them is delivered.
func routeCopies(e *env) {
	c := e.open()
	queues := []string{"p", "q", "r"}
	e.declare(c, routing.Exchange{Name: "d", Kind: routing.Direct}, routing.Exchange{Name: "t", Kind: routing.Topic}, routing.Exchange{Name: "h", Kind: routing.Headers}, "p", "q", "r",
		to("d", "p", "p"), to("d", "q", "q"), to("d", "r", "r"), to("t", "p", "p.#"), to("t", "q", "*.q"), to("t", "r", "r"))
	list := func(keys ...any) []any { return keys }
	e.routes(c, "d", &polymq.Message{Key: "none", Header: polymq.Header{"CC": list("q"), "BCC": list("r", "none")}}, queues, "q", "r")
	e.routes(c, "d", &polymq.Message{Key: "p", Header: polymq.Header{"CC": list("q", "p")}}, queues, "p", "q")
	e.routes(c, "t", &polymq.Message{Key: "p.x", Header: polymq.Header{"CC": list("a.q"), "BCC": list("r")}}, queues, "p", "q", "r")
	e.routes(c, "", &polymq.Message{Key: "nowhere", Header: polymq.Header{"BCC": list("r")}}, queues, "r")
	e.routes(c, "d", &polymq.Message{Key: "none", Header: polymq.Header{"CC": list("none")}}, queues)

	e.publish(c, "d", &polymq.Message{Key: "p", Header: polymq.Header{"CC": list("q"), "BCC": list("r"), "kept": 1}})
	for _, q := range queues {
		d := e.receive(e.subscriber(c, q, 1))
		if _, there := d.Header["BCC"]; there || !sameValue(d.Header["CC"], list("q")) || !sameValue(d.Header["kept"], int64(1)) {
			e.Errorf("queue %q: headers arrived as %v, want CC kept and BCC removed", q, d.Header)
		}
		if d.Key != "p" {
			e.Errorf("queue %q: key arrived as %q, want p", q, d.Key)
		}
	}
}

// recorded is a sample of random topologies and messages as real RabbitMQs
// routed them.
//
//go:embed testdata/routing.json
var recorded []byte

type vectors struct {
	Broker string
	Cases  []struct {
		Number    int
		Exchanges []routing.Exchange
		Queues    []string
		Bindings  []struct {
			Source, Dest, Key string
			ToExchange        bool `json:"to_exchange"`
			Args              map[string]typed
		}
		Messages []struct {
			Exchange, Key string
			Headers       map[string]typed
			CC, BCC       []any
			Queues        []string
			Returned      bool
		}
	}
}

// typed is a value with the name of its AMQP type.
type typed struct{ value any }

func (v *typed) UnmarshalJSON(data []byte) error {
	var raw struct {
		T string
		V json.RawMessage
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return err
	}
	into := func(p any) error { return json.Unmarshal(raw.V, p) }
	var err error
	switch raw.T {
	case "void":
	case "string":
		var s string
		err = into(&s)
		v.value = s
	case "bool":
		var b bool
		err = into(&b)
		v.value = b
	case "int32", "int64":
		var n int64
		err = into(&n)
		v.value = n
	case "double":
		var f float64
		err = into(&f)
		v.value = f
	default:
		err = fmt.Errorf("type %q", raw.T)
	}
	return err
}

func values(in map[string]typed) map[string]any {
	if in == nil {
		return nil
	}
	out := make(map[string]any, len(in))
	for name, v := range in {
		out[name] = v.value
	}
	return out
}

// routeRecorded publishes and consumes the sample, in one namespace that is
// cleared between cases.
func routeRecorded(e *env) {
	var v vectors
	e.must(json.Unmarshal(recorded, &v), "the recorded routes")
	admin, c := e.open(), e.open()
	for _, vc := range v.Cases {
		var t routing.Topology
		t.Exchanges = vc.Exchanges
		for _, q := range vc.Queues {
			t.Queues = append(t.Queues, routing.Queue{Name: q, Transient: true})
		}
		for _, b := range vc.Bindings {
			rb := routing.Binding{Exchange: b.Source, Key: b.Key, Args: values(b.Args), Queue: b.Dest}
			if b.ToExchange {
				rb.Queue, rb.ToExchange = "", b.Dest
			}
			t.Bindings = append(t.Bindings, rb)
		}
		e.must(admin.Declare(e.ctx, t), "case %d: Declare", vc.Number)
		want := map[string][]string{}
		for i, m := range vc.Messages {
			pm := &polymq.Message{Key: m.Key, Header: values(m.Headers), Body: []byte(strconv.Itoa(i))}
			for name, keys := range map[string][]any{"CC": m.CC, "BCC": m.BCC} {
				if keys == nil {
					continue
				}
				if pm.Header == nil {
					pm.Header = polymq.Header{}
				}
				pm.Header[name] = keys
			}
			err := e.try(c, m.Exchange, pm)
			if m.Returned != is(err, polymq.ErrUnroutable) || !m.Returned && err != nil {
				e.Errorf("case %d, message %d (exchange %q, key %q, headers %v): got %v, %s: queues %q, returned %v",
					vc.Number, i, m.Exchange, m.Key, pm.Header, err, v.Broker, m.Queues, m.Returned)
			}
			for _, q := range m.Queues {
				want[q] = append(want[q], strconv.Itoa(i))
			}
		}
		for _, q := range vc.Queues {
			var got []string
			for _, d := range e.drain(c, q) {
				got = append(got, string(d.Body))
			}
			if !slices.Equal(got, want[q]) {
				e.Errorf("case %d, queue %q: got messages %q, %s: %q", vc.Number, q, got, v.Broker, want[q])
			}
			e.must(admin.DeleteQueue(e.ctx, q, nil), "DeleteQueue")
		}
		for _, x := range vc.Exchanges {
			e.must(admin.DeleteExchange(e.ctx, x.Name, nil), "DeleteExchange")
		}
		if e.Failed() {
			return
		}
	}
}
