package conformance

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var topologyRows = []row{
	{promise: 8, name: "again", run: declaredAgain},
	{promise: 8, name: "concurrent", run: declaredConcurrently},
	{promise: 8, name: "conflict-exchange", run: conflictExchange},
	{promise: 8, name: "conflict-queue", run: conflictQueue},
	{promise: 8, name: "conflict-dead-letter", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: conflictDeadLetter},
	{promise: 8, name: "conflict-max-attempts", needs: []polymq.Feature{polymq.FeatureMaxAttempts}, run: conflictMaxAttempts},
	{promise: 8, name: "verify", run: verifyChangesNothing},
	{promise: 8, name: "missing-ends", run: missingEnds},
	{promise: 8, name: "nothing-to-remove", run: nothingToRemove},
	{promise: 8, name: "binding-identity", run: bindingIdentity},
	{promise: 8, name: "read-back", needs: []polymq.Feature{polymq.FeatureTopology}, run: readBack},

	{promise: 9, name: "bind", run: bindInForce},
	{promise: 9, name: "unbind", run: unbindInForce},
	{promise: 9, name: "rounds", run: inForceRounds},
	{promise: 9, name: "under-load", run: inForceUnderLoad},
	{promise: 9, name: "declare", run: declareInForce},
	{promise: 9, name: "between-exchanges", run: exchangesInForce},
	{promise: 9, name: "delete-queue", run: deleteQueueInForce},
	{promise: 9, name: "delete-exchange", run: deleteExchangeInForce},
	{promise: 9, name: "delete-conditions", run: deleteConditions},

	{promise: 11, name: "names", run: anyName},
	{promise: 11, name: "keys", run: anyKey},
	{promise: 11, name: "alike", run: namesAlike},
	{promise: 11, name: "illegal", run: illegalNames},
	{promise: 11, name: "predeclared", run: predeclared},
	{promise: 11, name: "reserved", run: reserved},
}

func declaredAgain(e *env) {
	c, other := e.open(), e.open()
	t := topology(
		routing.Exchange{Name: "x", Kind: routing.Topic, Alternate: "alt"}, routing.Exchange{Name: "alt", Kind: routing.Fanout, Transient: true},
		"q", routing.Queue{Name: "t", Transient: true}, to("x", "q", "a.#"), to("alt", "t", ""),
		routing.Binding{Exchange: "x", ToExchange: "alt", Key: "b"},
	)
	e.must(c.Declare(e.ctx, t), "Declare")
	e.publish(c, "x", msg("a.1", "1"))
	e.must(c.Declare(e.ctx, t), "Declare of the same again")
	e.must(other.Declare(e.ctx, t), "Declare of the same from another connection")
	e.must(other.Declare(e.ctx, routing.Topology{Queues: t.Queues[:1]}), "Declare of a part")
	e.must(other.Bind(e.ctx, t.Bindings...), "Bind of what is bound")
	e.must(other.Declare(e.ctx, routing.Topology{}), "Declare of nothing")
	e.publish(other, "x", msg("a.2", "2"))
	e.has(c, "q", "1", "2")
}

func declaredConcurrently(e *env) {
	conns := []*polymq.Conn{e.open(), e.open(), e.open()}
	var wg sync.WaitGroup
	for g := range 9 {
		c := conns[g%len(conns)]
		wg.Go(func() {
			t := topology(routing.Exchange{Name: "x", Kind: routing.Direct}, "shared", "own "+strconv.Itoa(g),
				to("x", "shared", "k"), to("x", "own "+strconv.Itoa(g), "k"))
			if err := c.Declare(e.ctx, t); err != nil {
				e.Errorf("Declare beside others: %v", err)
			}
		})
	}
	wg.Wait()
	e.publish(conns[0], "x", msg("k", "to all"))
	e.has(conns[1], "shared", "to all")
	for g := range 9 {
		e.has(conns[1], "own "+strconv.Itoa(g), "to all")
	}
}

// conflicts declares each variant of something that stands and wants
// ErrConflict that names the field. Names are compared without punctuation and
// case.
func (e *env) conflicts(c *polymq.Conn, variant any, names ...string) {
	e.Helper()
	for call, err := range map[string]error{
		"Declare": c.Declare(e.ctx, topology(variant)),
		"Verify":  c.Verify(e.ctx, topology(variant)),
	} {
		what := fmt.Sprintf("%s of %+v, which stands differently", call, variant)
		e.mustBe(err, what, polymq.ErrConflict)
		text := plain(err.Error())
		if !slices.ContainsFunc(names, func(n string) bool { return strings.Contains(text, plain(n)) }) {
			e.Errorf("%s: the error does not name the field (one of %q): %v", what, names, err)
		}
	}
}

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r == ' ' {
			return -1
		}
		return r
	}, strings.ToLower(s))
}

func conflictExchange(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic, Alternate: "alt"}, routing.Exchange{Name: "alt", Kind: routing.Fanout},
		"q", "rest", to("x", "q", "a.*"), to("alt", "rest", ""))
	for _, c := range []*polymq.Conn{c, other} {
		e.conflicts(c, routing.Exchange{Name: "x", Kind: routing.Direct, Alternate: "alt"}, "kind", "type")
		e.conflicts(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "alternate")
		e.conflicts(c, routing.Exchange{Name: "x", Kind: routing.Topic, Alternate: "other"}, "alternate")
		e.conflicts(c, routing.Exchange{Name: "x", Kind: routing.Topic, Alternate: "alt", Transient: true}, "transient", "durable")
	}
	e.publish(c, "x", msg("a.b", "hit"), msg("b", "rest"))
	e.has(c, "q", "hit")
	e.has(c, "rest", "rest")
}

func conflictQueue(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q", routing.Queue{Name: "t", Transient: true})
	e.publish(c, "", msg("q", "kept"))
	for _, c := range []*polymq.Conn{c, other} {
		e.conflicts(c, routing.Queue{Name: "q", Transient: true}, "transient", "durable", "type")
		e.conflicts(c, routing.Queue{Name: "t"}, "transient", "durable", "type")
	}
	e.has(c, "q", "kept")
}

func conflictDeadLetter(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "plain", routing.Queue{Name: "dead", DeadLetterExchange: "dlx", DeadLetterKey: "key"})
	for _, c := range []*polymq.Conn{c, other} {
		e.conflicts(c, routing.Queue{Name: "plain", DeadLetterExchange: "dlx"}, "dead-letter")
		e.conflicts(c, routing.Queue{Name: "dead"}, "dead-letter")
		e.conflicts(c, routing.Queue{Name: "dead", DeadLetterExchange: "other", DeadLetterKey: "key"}, "dead-letter")
		e.conflicts(c, routing.Queue{Name: "dead", DeadLetterExchange: "dlx", DeadLetterKey: "other"}, "dead-letter")
	}
}

func conflictMaxAttempts(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Queue{Name: "three", MaxAttempts: 3}, "plain")
	for _, c := range []*polymq.Conn{c, other} {
		e.conflicts(c, routing.Queue{Name: "three", MaxAttempts: 4}, "attempts", "limit")
		e.conflicts(c, routing.Queue{Name: "three"}, "attempts", "limit")
		e.conflicts(c, routing.Queue{Name: "plain", MaxAttempts: 3}, "attempts", "limit")
	}
}

func verifyChangesNothing(e *env) {
	c, other := e.open(), e.open()
	x, q, b := routing.Exchange{Name: "x", Kind: routing.Direct}, routing.Queue{Name: "q"}, to("x", "q", "k")
	e.declare(c, x, "r")
	for _, missing := range []any{routing.Exchange{Name: "y", Kind: routing.Direct}, q} {
		for range 2 {
			e.mustBe(other.Verify(e.ctx, topology(missing)), fmt.Sprintf("Verify of %+v, which is missing", missing), polymq.ErrNotFound)
		}
	}
	e.must(other.Verify(e.ctx, topology(x)), "Verify of what stands")
	e.mustBe(other.Verify(e.ctx, topology(x, "r", to("x", "r", "k"))), "Verify of a missing binding", polymq.ErrNotFound)
	e.mustBe(e.try(c, "x", msg("k", "")), "Publish after that", polymq.ErrUnroutable)
	e.declare(c, q, b)
	e.must(other.Verify(e.ctx, topology(x, q, b)), "Verify of what stands")
	e.mustBe(other.Verify(e.ctx, topology(to("x", "q", "other"))), "Verify of a binding with another key", polymq.ErrNotFound)
	e.must(other.Verify(e.ctx, routing.Topology{}), "Verify of nothing")
}

// missingEnds wants ErrNotFound of whatever needs something that is not there.
func missingEnds(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q")
	e.mustBe(c.Bind(e.ctx, to("missing", "q", "k")), "Bind of a missing exchange", polymq.ErrNotFound)
	e.mustBe(c.Bind(e.ctx, to("x", "missing", "k")), "Bind of a missing queue", polymq.ErrNotFound)
	e.mustBe(c.Bind(e.ctx, routing.Binding{Exchange: "x", ToExchange: "missing", Key: "k"}), "Bind to a missing exchange", polymq.ErrNotFound)
	e.mustBe(c.Declare(e.ctx, topology(to("x", "missing", "k"))), "Declare of a binding to a missing queue", polymq.ErrNotFound)
	_, err := c.Subscriber(e.ctx, "missing", nil)
	e.mustBe(err, "Subscriber of a missing queue", polymq.ErrNotFound)
	if f := c.Features(); f.Has(polymq.FeaturePurge) {
		_, err := c.Purge(e.ctx, "missing")
		e.mustBe(err, "Purge of a missing queue", polymq.ErrNotFound)
	}
	if f := c.Features(); f.Has(polymq.FeatureInspect) {
		_, err := c.Inspect(e.ctx, "missing")
		e.mustBe(err, "Inspect of a missing queue", polymq.ErrNotFound)
	}
	e.mustBe(e.try(c, "x", msg("k", "")), "Publish after that", polymq.ErrUnroutable)
}

func nothingToRemove(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", to("x", "q", "k"))
	e.must(c.Unbind(e.ctx, to("x", "q", "other")), "Unbind of a binding that is not there")
	e.must(c.Unbind(e.ctx, to("x", "missing", "k")), "Unbind of a missing queue")
	e.must(c.Unbind(e.ctx, to("missing", "q", "k")), "Unbind of a missing exchange")
	e.must(c.DeleteQueue(e.ctx, "missing", nil), "DeleteQueue of a missing queue")
	e.must(c.DeleteExchange(e.ctx, "missing", nil), "DeleteExchange of a missing exchange")
	e.publish(c, "x", msg("k", "still bound"))
	e.has(c, "q", "still bound")
}

// bindingIdentity shows that a binding is all of its fields.
func bindingIdentity(e *env) {
	c, other := e.open(), e.open()
	one := routing.Binding{Exchange: "h", Queue: "q", Key: "k", Args: map[string]any{"x-match": "all", "n": 1}}
	two := routing.Binding{Exchange: "h", Queue: "q", Key: "k", Args: map[string]any{"x-match": "all", "n": 2}}
	text := routing.Binding{Exchange: "h", Queue: "q", Key: "k", Args: map[string]any{"x-match": "all", "n": "1"}}
	e.declare(c, routing.Exchange{Name: "h", Kind: routing.Headers}, "q", one, two, text)
	with := func(n any) *polymq.Message {
		return &polymq.Message{Header: polymq.Header{"n": n}, Body: fmt.Appendf(nil, "%T %v", n, n)}
	}
	e.publish(other, "h", with(1), with(2), with("1"))
	e.must(other.Unbind(e.ctx, one), "Unbind")
	e.mustBe(e.try(c, "h", with(1)), "Publish for the binding that was removed", polymq.ErrUnroutable)
	e.publish(c, "h", with(2), with("1"))
	e.must(c.Unbind(e.ctx, routing.Binding{Exchange: "h", Queue: "q", Key: "other", Args: two.Args}), "Unbind with another key")
	e.publish(c, "h", with(2))
	e.has(c, "q", "int 1", "int 2", "string 1", "int 2", "string 1", "int 2")
}

func readBack(e *env) {
	c, other := e.open(), e.open()
	if got, err := c.Topology(e.ctx); err != nil || len(got.Exchanges)+len(got.Queues)+len(got.Bindings) > 0 {
		e.Fatalf("Topology of an empty namespace: got %+v, error %v", got, err)
	}
	f := c.Features()
	want := topology(
		routing.Exchange{Name: "d", Kind: routing.Direct}, routing.Exchange{Name: "f", Kind: routing.Fanout, Transient: true},
		routing.Exchange{Name: "h", Kind: routing.Headers}, routing.Exchange{Name: "t", Kind: routing.Topic, Alternate: "f"},
		routing.Queue{Name: "q"}, routing.Queue{Name: "r", Transient: true},
		to("d", "q", "key"), to("d", "q", "key 2"), to("d", "r", ""), to("f", "r", "ignored"), to("t", "q", "a.*.#"),
		routing.Binding{Exchange: "t", ToExchange: "d", Key: "#"},
		routing.Binding{Exchange: "h", Queue: "q", Args: map[string]any{"x-match": "any-with-x", "n": int64(1), "s": "1", "b": true, "present": nil}},
	)
	if f.Has(polymq.FeatureDeadLetter) {
		want.Queues = append(want.Queues, routing.Queue{Name: "s", DeadLetterExchange: "d", DeadLetterKey: "key"},
			routing.Queue{Name: "u", DeadLetterExchange: routing.DefaultExchange})
	}
	if f.Has(polymq.FeatureMaxAttempts) {
		want.Queues = append(want.Queues, routing.Queue{Name: "v", MaxAttempts: 4})
	}
	e.must(c.Declare(e.ctx, want), "Declare")
	for _, conn := range []*polymq.Conn{c, other, e.open()} {
		e.sameTopology(conn, want)
	}
	got, err := other.Topology(e.ctx)
	e.must(err, "Topology")
	e.must(other.Verify(e.ctx, got), "Verify of what Topology returned")
	e.must(other.Declare(e.ctx, got), "Declare of what Topology returned")

	e.must(other.Unbind(e.ctx, want.Bindings[1]), "Unbind")
	e.must(other.DeleteQueue(e.ctx, "r", nil), "DeleteQueue")
	want.Queues = slices.DeleteFunc(want.Queues, func(q routing.Queue) bool { return q.Name == "r" })
	want.Bindings = slices.DeleteFunc(want.Bindings, func(b routing.Binding) bool { return b.Key == "key 2" || b.Queue == "r" })
	e.sameTopology(c, want)
}

// sameTopology compares what stands with what was declared. Queue.Type, which
// a broker may fill in, is left aside.
func (e *env) sameTopology(c *polymq.Conn, want routing.Topology) {
	e.Helper()
	got, err := c.Topology(e.ctx)
	e.must(err, "Topology")
	text := func(t routing.Topology) (lines []string) {
		for _, x := range t.Exchanges {
			lines = append(lines, fmt.Sprintf("exchange %+v", x))
		}
		for _, q := range t.Queues {
			q.Type = ""
			if len(q.Args) == 0 {
				q.Args = nil
			}
			lines = append(lines, fmt.Sprintf("queue %+v", q))
		}
		for _, b := range t.Bindings {
			var args []string
			for _, name := range slices.Sorted(maps.Keys(b.Args)) {
				args = append(args, fmt.Sprintf("%s=%T %v", name, b.Args[name], b.Args[name]))
			}
			lines = append(lines, fmt.Sprintf("binding %q to queue %q, exchange %q, key %q, arguments %q", b.Exchange, b.Queue, b.ToExchange, b.Key, args))
		}
		slices.Sort(lines)
		return lines
	}
	g, w := text(got), text(want)
	if !slices.Equal(g, w) {
		e.Fatalf("Topology returned\n\t%s\nwant\n\t%s", strings.Join(g, "\n\t"), strings.Join(w, "\n\t"))
	}
	if !slices.IsSortedFunc(got.Queues, func(a, b routing.Queue) int { return strings.Compare(a.Name, b.Name) }) ||
		!slices.IsSortedFunc(got.Exchanges, func(a, b routing.Exchange) int { return strings.Compare(a.Name, b.Name) }) {
		e.Errorf("Topology is not sorted by name")
	}
}

func bindInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "q", "r")
	e.mustBe(e.try(other, "x", msg("0", "")), "Publish before the first binding", polymq.ErrUnroutable)
	var want []string
	for i := range 20 {
		key := strconv.Itoa(i)
		e.must(c.Bind(e.ctx, to("x", "q", key)), "Bind")
		e.publish(other, "x", msg(key, key))
		want = append(want, key)
	}
	// To a message that already has a queue, a new binding matters as much.
	e.must(c.Bind(e.ctx, to("x", "r", "#")), "Bind")
	e.publish(other, "x", msg("3", "to both"))
	e.has(c, "q", append(want, "to both")...)
	e.has(c, "r", "to both")
}

func unbindInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", "r", to("x", "q", "k"), to("x", "r", "k"))
	e.publish(other, "x", msg("k", "to both"))
	e.must(c.Unbind(e.ctx, to("x", "q", "k")), "Unbind")
	e.publish(other, "x", msg("k", "to r"))
	e.must(c.Unbind(e.ctx, to("x", "r", "k")), "Unbind")
	e.mustBe(e.try(other, "x", msg("k", "to none")), "Publish after the last Unbind", polymq.ErrUnroutable)
	e.has(c, "q", "to both")
	e.has(c, "r", "to both", "to r")
}

// inForceRounds binds and unbinds from one connection, and publishes from two
// others right after each return.
func inForceRounds(e *env) {
	c, near, far := e.open(), e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q")
	var want []string
	for i := range 200 {
		p, where := near, "one connection"
		if i%2 == 1 {
			p, where = far, "another connection"
		}
		e.must(c.Bind(e.ctx, to("x", "q", "k")), "Bind, round %d", i)
		if err := e.try(p, "x", msg("k", strconv.Itoa(i))); err != nil {
			e.Fatalf("round %d: Bind has returned, then a Publish from %s: %v", i, where, err)
		}
		want = append(want, strconv.Itoa(i))
		e.must(c.Unbind(e.ctx, to("x", "q", "k")), "Unbind, round %d", i)
		if err := e.try(p, "x", msg("k", "misrouted")); !is(err, polymq.ErrUnroutable) {
			e.Fatalf("round %d: Unbind has returned, then a Publish from %s: got %v, want ErrUnroutable", i, where, err)
		}
	}
	e.has(c, "q", want...)
}

// inForceUnderLoad does the same beside publishers that are never idle, whose
// batches and round trips the publish that counts may join.
func inForceUnderLoad(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, "q", "noise", to("x", "noise", "noise"))
	p := e.publisher(other, "x")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(stop)
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if err := p.Publish(e.ctx, msg("noise", "")); err != nil {
					e.Errorf("Publish beside the rounds: %v", err)
					return
				}
			}
		})
	}
	for i := range 40 {
		e.must(c.Bind(e.ctx, to("x", "q", "k")), "Bind, round %d", i)
		if err := p.Publish(e.short(), msg("k", "")); err != nil {
			e.Fatalf("round %d: Bind has returned, then Publish: %v", i, err)
		}
		e.must(c.Unbind(e.ctx, to("x", "q", "k")), "Unbind, round %d", i)
		if err := p.Publish(e.short(), msg("k", "")); !is(err, polymq.ErrUnroutable) {
			e.Fatalf("round %d: Unbind has returned, then Publish: got %v, want ErrUnroutable", i, err)
		}
	}
}

func declareInForce(e *env) {
	c, other := e.open(), e.open()
	for i := range 15 {
		x, q := "x"+strconv.Itoa(i), "q"+strconv.Itoa(i)
		e.mustBe(e.try(other, x, msg("k", "")), "Publish before Declare", polymq.ErrNotFound)
		e.mustBe(e.try(other, "", msg(q, "")), "Publish to the default exchange before Declare", polymq.ErrUnroutable)
		e.declare(c, routing.Exchange{Name: x, Kind: routing.Fanout}, q, to(x, q, ""))
		e.publish(other, x, msg("k", "1"))
		e.publish(other, "", msg(q, "2"))
		e.has(other, q, "1", "2")
	}
}

func exchangesInForce(e *env) {
	c, other := e.open(), e.open()
	link := routing.Binding{Exchange: "in", ToExchange: "out", Key: "k"}
	e.declare(c, routing.Exchange{Name: "in", Kind: routing.Direct}, routing.Exchange{Name: "out", Kind: routing.Fanout}, "q", to("out", "q", ""))
	for i := range 20 {
		e.must(c.Bind(e.ctx, link), "Bind")
		e.publish(other, "in", msg("k", strconv.Itoa(i)))
		e.must(c.Unbind(e.ctx, link), "Unbind")
		e.mustBe(e.try(other, "in", msg("k", "")), "Publish after Unbind", polymq.ErrUnroutable)
	}
	e.has(c, "q", bodies(numbered(20, "", ""))...)
}

func deleteQueueInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "stays", to("x", "stays", ""))
	var want []string
	for i := range 10 {
		e.declare(c, "q", to("x", "q", ""))
		e.publish(other, "x", msg("", "both"))
		e.publish(other, "", msg("q", "default"))
		e.must(c.DeleteQueue(e.ctx, "q", nil), "DeleteQueue, round %d", i)
		e.mustBe(e.try(other, "", msg("q", "gone")), "Publish to the deleted queue", polymq.ErrUnroutable)
		e.publish(other, "x", msg("", "one"))
		want = append(want, "both", "one")
	}
	e.declare(c, "q")
	e.publish(other, "x", msg("", "binding gone too"))
	e.publish(other, "", msg("q", "only this"))
	e.has(c, "q", "only this")
	e.has(c, "stays", append(want, "binding gone too")...)
}

func deleteExchangeInForce(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "in", Kind: routing.Fanout, Alternate: "alt"}, routing.Exchange{Name: "mid", Kind: routing.Fanout},
		"q", "rest", to("mid", "q", ""), routing.Binding{Exchange: "in", ToExchange: "mid"})
	e.publish(other, "in", msg("", "1"))
	e.must(c.DeleteExchange(e.ctx, "mid", nil), "DeleteExchange")
	e.mustBe(e.try(other, "in", msg("", "2")), "Publish once the exchange between is deleted", polymq.ErrUnroutable)
	e.declare(c, routing.Exchange{Name: "alt", Kind: routing.Fanout}, to("alt", "rest", ""))
	e.publish(other, "in", msg("", "3"))
	e.must(c.DeleteExchange(e.ctx, "alt", nil), "DeleteExchange of an alternate exchange")
	e.mustBe(e.try(other, "in", msg("", "4")), "Publish once the alternate exchange is deleted", polymq.ErrUnroutable)
	e.has(c, "q", "1")
	e.has(c, "rest", "3")
}

func deleteConditions(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	e.publish(c, "x", msg("", "1"))
	e.mustBe(c.DeleteQueue(e.ctx, "q", &polymq.DeleteOptions{IfEmpty: true}), "DeleteQueue with IfEmpty of a queue with a message", polymq.ErrInUse)
	e.mustBe(c.DeleteExchange(e.ctx, "x", &polymq.DeleteOptions{IfUnused: true}), "DeleteExchange with IfUnused of an exchange with a binding", polymq.ErrInUse)
	s := e.subscriber(other, "q", 1)
	e.ack(e.body(s, "1"))
	e.mustBe(c.DeleteQueue(e.ctx, "q", &polymq.DeleteOptions{IfUnused: true}), "DeleteQueue with IfUnused of a queue with a subscriber", polymq.ErrInUse)
	e.publish(c, "x", msg("", "still there"))
	e.ack(e.body(s, "still there"))
	e.close(s)
	e.eventually("DeleteQueue with IfUnused and IfEmpty of a queue that is neither", func() bool {
		err := c.DeleteQueue(e.ctx, "q", &polymq.DeleteOptions{IfUnused: true, IfEmpty: true})
		if err != nil && !is(err, polymq.ErrInUse) {
			e.Fatalf("DeleteQueue: %v", err)
		}
		return err == nil
	})
	e.mustBe(e.try(other, "x", msg("", "")), "Publish after that", polymq.ErrUnroutable)
	e.must(c.DeleteExchange(e.ctx, "x", &polymq.DeleteOptions{IfUnused: true}), "DeleteExchange with IfUnused of an exchange whose queue is deleted")
	e.mustBe(e.try(other, "x", msg("", "")), "Publish after that", polymq.ErrNotFound)
	e.mustBe(c.Verify(e.ctx, topology("q")), "Verify of the deleted queue", polymq.ErrNotFound)
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
