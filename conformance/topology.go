package conformance

import (
	"errors"
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
	{promise: 8, name: "plan", needs: []polymq.Feature{polymq.FeatureTopology}, run: planned},
	{promise: 8, name: "queue-types", run: queueTypes},
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

// planned wants a plan to tell what Declare then does.
func planned(e *env) {
	c, other := e.open(), e.open()
	t := topology(
		routing.Exchange{Name: "x", Kind: routing.Headers, Alternate: "alt"}, routing.Exchange{Name: "alt", Kind: routing.Fanout},
		"q", routing.Queue{Name: "c", Type: routing.Classic}, routing.Queue{Name: "t", Transient: true}, to("alt", "t", ""),
		routing.Binding{Exchange: "x", Queue: "q", Args: map[string]any{"x-match": "any", "bytes": []byte("b"), "int": 1, "float": 1.5, "nil": nil}},
		routing.Binding{Exchange: "x", ToExchange: "alt", Key: "b"},
	)
	plan := func(t routing.Topology) routing.Plan {
		p, err := c.Plan(e.ctx, t)
		e.must(err, "Plan")
		return p
	}
	text := func(t routing.Topology) string { return fmt.Sprintf("%v %v %v", t.Exchanges, t.Queues, t.Bindings) }
	if p := plan(t); len(p.Create.Exchanges) != 2 || len(p.Create.Queues) != 3 || len(p.Create.Bindings) != 3 || p.Done() {
		e.Fatalf("of an empty namespace the plan is\n%v", p)
	}
	e.must(other.Declare(e.ctx, routing.Topology{Exchanges: t.Exchanges, Queues: t.Queues, Bindings: t.Bindings[:2]}), "Declare")
	p := plan(t)
	if text(p.Create) != text(routing.Topology{Bindings: t.Bindings[2:]}) || len(p.Conflicts) > 0 || text(p.Extra) != text(routing.Topology{}) {
		e.Fatalf("where one binding is missing the plan is\n%v", p)
	}
	e.must(c.Declare(e.ctx, p.Create), "Declare of what the plan says")
	if p := plan(t); !p.Done() {
		e.Fatalf("where all is declared the plan is\n%v", p)
	}
	differs := topology(routing.Exchange{Name: "x", Kind: routing.Direct}, routing.Queue{Name: "t"}, "new")
	p = plan(differs)
	var conflicts []string
	for _, c := range p.Conflicts {
		conflicts = append(conflicts, c.String())
	}
	slices.Sort(conflicts)
	if want := []string{`exchange "x": Kind is "headers", asked for "direct", Alternate is "alt", asked for ""`, `queue "t": Transient is true, asked for false`}; !slices.Equal(conflicts, want) {
		e.Errorf("the plan has the conflicts %q, want %q", conflicts, want)
	}
	if len(p.Create.Queues) != 1 || p.Create.Queues[0].Name != "new" || len(p.Extra.Exchanges) != 1 || len(p.Extra.Queues) != 2 || len(p.Extra.Bindings) != 3 {
		e.Errorf("of another topology the plan is\n%v", p)
	}
	e.mustBe(c.Declare(e.ctx, differs), "Declare of what the plan says conflicts", polymq.ErrConflict)
}

// queueTypes wants the types that every backend takes, and no others.
func queueTypes(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "quorum", Type: routing.Quorum}, routing.Queue{Name: "classic", Type: routing.Classic}, "default")
	e.declare(c, "quorum", routing.Queue{Name: "default", Type: routing.Quorum})
	e.mustBe(c.Declare(e.ctx, topology("classic")), "Declare of a classic queue as one of the default type", polymq.ErrConflict)
	e.mustBe(c.Declare(e.ctx, topology(routing.Queue{Name: "default", Type: routing.Classic})), "Declare of a queue of the default type as a classic one", polymq.ErrConflict)
	e.mustBe(c.Declare(e.ctx, topology(routing.Queue{Name: "other", Type: "no such type"})), "Declare of a queue of another type", errors.ErrUnsupported)
}
