package conformance

import (
	"slices"
	"strconv"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var orderRows = []row{
	{promise: 5, name: "many-bindings", run: manyBindings},
	{promise: 5, name: "many-paths", run: manyPaths},
	{promise: 5, name: "many-keys", run: manyKeys},

	{promise: 6, name: "singles", run: orderOfSingles},
	{promise: 6, name: "batches", run: orderOfBatches},
	{promise: 6, name: "async", run: orderOfAsync},
	{promise: 6, name: "fan-out", run: orderOfFanOut},
	{promise: 6, name: "redelivered", run: orderOfRedelivered},
	{promise: 6, name: "redelivered-beside-publishes", run: orderBesidePublishes},
}

func manyBindings(e *env) {
	c := e.open()
	e.declare(c,
		routing.Exchange{Name: "t", Kind: routing.Topic}, routing.Exchange{Name: "f", Kind: routing.Fanout}, routing.Exchange{Name: "h", Kind: routing.Headers}, "q", "r",
		to("t", "q", "a.b"), to("t", "q", "a.*"), to("t", "q", "#"), to("t", "q", "*.b"), to("t", "r", "#.b"),
		to("f", "q", ""), to("f", "q", "1"), to("f", "q", "2"),
		routing.Binding{Exchange: "h", Queue: "q", Args: map[string]any{"x-match": "any", "a": 1, "b": 1}},
		routing.Binding{Exchange: "h", Queue: "q", Args: map[string]any{"x-match": "all", "a": 1}},
		routing.Binding{Exchange: "h", Queue: "q", Key: "again", Args: map[string]any{"x-match": "all", "a": 1}},
	)
	e.publish(c, "t", msg("a.b", "topic"))
	e.publish(c, "f", msg("a.b", "fanout"))
	e.publish(c, "h", &polymq.Message{Header: polymq.Header{"a": 1, "b": 1}, Body: []byte("headers")})
	e.publish(c, "t", numbered(50, "a.b", "")...)
	e.has(c, "q", append([]string{"topic", "fanout", "headers"}, bodies(numbered(50, "", ""))...)...)
	e.has(c, "r", append([]string{"topic"}, bodies(numbered(50, "", ""))...)...)
}

func manyPaths(e *env) {
	c := e.open()
	e.declare(c,
		routing.Exchange{Name: "in", Kind: routing.Fanout}, routing.Exchange{Name: "left", Kind: routing.Direct},
		routing.Exchange{Name: "right", Kind: routing.Topic}, routing.Exchange{Name: "out", Kind: routing.Fanout}, "q",
		routing.Binding{Exchange: "in", ToExchange: "left"}, routing.Binding{Exchange: "in", ToExchange: "right"},
		routing.Binding{Exchange: "left", ToExchange: "out", Key: "k"}, routing.Binding{Exchange: "right", ToExchange: "out", Key: "#"},
		to("out", "q", ""), to("left", "q", "k"), to("in", "q", ""),
	)
	e.publish(c, "in", numbered(20, "k", "")...)
	e.has(c, "q", bodies(numbered(20, "", ""))...)
}

func manyKeys(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "a"), to("x", "q", "b"), to("x", "q", "c"))
	e.publish(c, "x", &polymq.Message{Key: "a", Header: polymq.Header{"CC": []any{"b", "a"}, "BCC": []any{"c"}}, Body: []byte("bound")})
	e.publish(c, "", &polymq.Message{Key: "q", Header: polymq.Header{"CC": []any{"q"}, "BCC": []any{"q"}}, Body: []byte("default")})
	e.has(c, "q", "bound", "default")
}

func orderOfSingles(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(300, "q", "")
	for _, m := range ms {
		e.publish(c, "", m)
	}
	e.has(e.open(), "q", bodies(ms)...)
}

func orderOfBatches(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(2000, "q", "")
	for batch := range slices.Chunk(ms, 150) {
		e.publish(c, "", batch...)
	}
	e.has(e.open(), "q", bodies(ms)...)
}

func orderOfAsync(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(2000, "q", "")
	s := e.subscriber(e.open(), "q", 50)
	e.publishAsync(c, ms)
	for _, m := range ms {
		e.ack(e.body(s, string(m.Body)))
	}
}

// orderOfFanOut routes each message to other queues, so that a publisher that
// works on queues side by side is seen to mix them up.
func orderOfFanOut(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "all", "odd", "even", to("x", "all", "#"), to("x", "odd", "odd"), to("x", "even", "even"))
	want := map[string][]string{}
	for i := range 400 {
		key := []string{"even", "odd"}[i%2]
		m := msg(key, strconv.Itoa(i))
		want[key], want["all"] = append(want[key], string(m.Body)), append(want["all"], string(m.Body))
		_, err := e.publisher(c, "x").PublishAsync(e.ctx, m)
		e.must(err, "PublishAsync")
	}
	e.must(e.publisher(c, "x").Flush(e.short()), "Flush")
	for _, q := range []string{"all", "odd", "even"} {
		e.has(c, q, want[q]...)
	}
}

func orderOfRedelivered(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(4, "q", "")...)
	s := e.subscriber(c, "q", 1)
	e.nack(e.body(s, "0"), 0)
	want := []string{"0", "1", "2", "3"}
	switch r := c.Features().Requeue; r {
	case "first":
	case "last":
		want = []string{"1", "2", "3", "0"}
	default:
		e.Fatalf("Features.Requeue is %q, want first or last", r)
	}
	for _, w := range want {
		e.ack(e.body(s, w))
	}
}

// publishAsync publishes without waiting for outcomes.
func (e *env) publishAsync(c *polymq.Conn, ms []*polymq.Message) {
	e.Helper()
	for _, m := range ms {
		_, err := e.publisher(c, "").PublishAsync(e.ctx, m)
		e.must(err, "PublishAsync")
	}
}

// orderBesidePublishes gives each message back once while others arrive, so that
// a backend that fills the room before the message is back is seen to. Where it
// comes last, any may come between, and it comes all the same.
func orderBesidePublishes(e *env) {
	c := e.open()
	e.declare(c, "q")
	ms := numbered(300, "q", "")
	s := e.subscriber(e.open(), "q", 1)
	e.publishAsync(c, ms)
	if c.Features().Requeue == "first" {
		for _, m := range ms {
			e.nack(e.body(s, string(m.Body)), 0)
			e.ack(e.body(s, string(m.Body)))
		}
		return
	}
	came := map[string]int{}
	for range 2 * len(ms) {
		d := e.receive(s)
		if came[string(d.Body)]++; came[string(d.Body)] == 1 {
			e.nack(d, 0)
		} else {
			e.ack(d)
		}
	}
	for _, m := range ms {
		if n := came[string(m.Body)]; n != 2 {
			e.Errorf("%s came %d times, want 2", m.Body, n)
		}
	}
}
