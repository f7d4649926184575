package routing

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func mustTable(t testing.TB, top Topology) *Table {
	t.Helper()
	table, err := NewTable(top)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func routed(t testing.TB, table *Table, exchange, key string, header map[string]any) string {
	t.Helper()
	queues, err := table.Route(nil, exchange, key, header)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(queues)
	return strings.Join(queues, " ")
}

// choices draws a small topology, and what is done to it, from bytes.
type choices struct{ data []byte }

func (c *choices) n(n int) int {
	if len(c.data) == 0 {
		return 0
	}
	v := int(c.data[0]) % n
	c.data = c.data[1:]
	return v
}

func choose[E any](c *choices, from ...E) E { return from[c.n(len(from))] }

func (c *choices) exchangeName() string {
	return choose(c, "x1", "x2", "x3", "x4", "amq.topic", "amq.match", "amq.no", "", "bad\x00", strings.Repeat("x", 256))
}

func (c *choices) queueName() string {
	return choose(c, "q1", "q2", "q3", "a", "a.b", "é", "amq.q", "", "\xff", strings.Repeat("q", 256))
}

func (c *choices) key() string {
	return choose(c, "", "a", "b", "a.b", "*", "#", "a.*", "#.b", "a.#.b", "*.*", "a..b", ".", "q1", "#.#", "#.a.#.#", "\x01", "\xc3", strings.Repeat("k", 256))
}

func (c *choices) value() any {
	return choose[any](c, nil, "1", []byte("1"), true, int64(1), 1.0, int32(2), float32(2), time.Unix(7, 5), []any{int8(1), "x"},
		map[string]any{"k": 1}, uint8(1), struct{}{}, "", int64(0), false, []any{}, []any{nil, uint64(1)}, "all", "any", "all-with-x", "any-with-x")
}

func (c *choices) table() map[string]any {
	n := c.n(4)
	if n == 0 {
		return nil
	}
	m := map[string]any{}
	for range n {
		m[choose(c, "x-match", "h1", "h2", "x-h", "CC", "BCC")] = c.value()
	}
	return m
}

func (c *choices) topology() (t Topology) {
	for range c.n(4) {
		t.Exchanges = append(t.Exchanges, Exchange{
			Name: c.exchangeName(), Kind: choose(c, Direct, Fanout, Topic, Headers, "x-later", ""), Alternate: choose(c, "", "x1", "x2", "gone", DefaultExchange, "\x02"),
		})
	}
	for range c.n(4) {
		t.Queues = append(t.Queues, Queue{Name: c.queueName(), MaxAttempts: c.n(3) - 1, DeadLetterKey: choose(c, "", "", "k"), DeadLetterExchange: choose(c, "", "x1", DefaultExchange)})
	}
	for range c.n(6) {
		b := Binding{Exchange: c.exchangeName(), Key: c.key(), Args: c.table()}
		switch c.n(5) {
		case 0, 1, 2:
			b.Queue = c.queueName()
		case 3:
			b.ToExchange = c.exchangeName()
		case 4:
			b.Queue, b.ToExchange = c.queueName(), c.exchangeName()
		}
		t.Bindings = append(t.Bindings, b)
	}
	return t
}

// change is Apply on plain text.
func (n naive) change(add, remove Topology) naive {
	same := func(a, b Binding) bool {
		return a.Exchange == b.Exchange && a.Queue == b.Queue && a.ToExchange == b.ToExchange && a.Key == b.Key && sameArgs(a.Args, b.Args)
	}
	n = naive{slices.Clone(n.Exchanges), slices.Clone(n.Queues), slices.Clone(n.Bindings)}
	for _, b := range remove.Bindings {
		n.Bindings = slices.DeleteFunc(n.Bindings, func(o Binding) bool { return same(o, b) })
	}
	for _, q := range remove.Queues {
		n.Queues = slices.DeleteFunc(n.Queues, func(o Queue) bool { return o.Name == q.Name })
		n.Bindings = slices.DeleteFunc(n.Bindings, func(o Binding) bool { return o.Queue != "" && o.Queue == q.Name })
	}
	for _, x := range remove.Exchanges {
		n.Exchanges = slices.DeleteFunc(n.Exchanges, func(o Exchange) bool { return o.Name == x.Name })
		n.Bindings = slices.DeleteFunc(n.Bindings, func(o Binding) bool { return o.Exchange == x.Name || o.ToExchange != "" && o.ToExchange == x.Name })
	}
	for _, x := range add.Exchanges {
		if _, ok := Predeclared(x.Name); ok {
			continue
		}
		n.Exchanges = append(slices.DeleteFunc(n.Exchanges, func(o Exchange) bool { return o.Name == x.Name }), x)
	}
	for _, q := range add.Queues {
		n.Queues = append(slices.DeleteFunc(n.Queues, func(o Queue) bool { return o.Name == q.Name }), q)
	}
	for _, b := range add.Bindings {
		if !slices.ContainsFunc(n.Bindings, func(o Binding) bool { return same(o, b) }) {
			n.Bindings = append(n.Bindings, b)
		}
	}
	return n
}

func (n naive) sizes() string {
	return fmt.Sprintf("%d exchanges, %d queues, %d bindings", len(n.Exchanges), len(n.Queues), len(n.Bindings))
}

// Any small topologies, one applied on the other, against a router that spells
// the rules out; what is illegal is a typed error and changes nothing.
func FuzzTable(f *testing.F) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		seed := make([]byte, 200)
		for i := range seed {
			seed[i] = byte(rng.Uint32())
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkTable(t, &choices{data}) })
}

func checkTable(t *testing.T, c *choices) (changes int) {
	table, model := mustTable(t, Topology{}), naive{}
	for round := 0; round < 40 && len(c.data) > 0; round++ {
		add, remove := c.topology(), Topology{}
		if c.n(2) == 0 {
			add, remove = remove, add
		}
		_ = add.Validate()
		next, err := table.Apply(add, remove)
		if err != nil {
			if next != nil {
				t.Fatal("an error and a table")
			}
			if !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrNoExchange) && !errors.Is(err, ErrNoQueue) {
				t.Fatalf("an error of no kind: %v", err)
			}
			// Element by element, so that legal ones get in.
			for _, one := range singles(add) {
				if next, err := table.Apply(one, Topology{}); err == nil {
					table, model = next, model.change(one, Topology{})
					changes++
				}
			}
		} else {
			table, model = next, model.change(add, remove)
			changes++
		}
		if got := naive(table.Topology()); got.sizes() != model.sizes() {
			t.Fatalf("the table holds %+v: want %+v", got, model)
		}
		for range 4 {
			exchange, key, header := c.exchangeName(), c.key(), c.table()
			got, err := table.Route([]string{"before"}, exchange, key, header)
			if got[0] != "before" || err != nil && len(got) != 1 {
				t.Fatalf("Route returned %q, %v", got, err)
			}
			got = got[1:]
			if errors.Is(err, ErrInvalid) {
				continue // CC or BCC
			}
			keys := []string{key}
			for _, name := range []string{"CC", "BCC"} {
				list, _ := header[name].([]any)
				for _, k := range list {
					keys = append(keys, k.(string))
				}
			}
			want, wantErr := model.route(exchange, keys, header)
			slices.Sort(got)
			if compiled, err2 := flattened(table).Route(nil, exchange, key, header); err == nil {
				slices.Sort(compiled)
				if err2 != nil || !slices.Equal(compiled, got) {
					t.Fatalf("compiled: %q, %v: want %q", compiled, err2, got)
				}
			}
			if !errors.Is(err, wantErr) || !slices.Equal(got, want) {
				t.Fatalf("exchange %q, key %q, header %v: %q, %v: want %q, %v; topology %+v", exchange, key, header, got, err, want, wantErr, model)
			}
		}
	}
	return changes
}

func singles(t Topology) (ones []Topology) {
	for _, x := range t.Exchanges {
		ones = append(ones, Topology{Exchanges: []Exchange{x}})
	}
	for _, q := range t.Queues {
		ones = append(ones, Topology{Queues: []Queue{q}})
	}
	for _, b := range t.Bindings {
		ones = append(ones, Topology{Bindings: []Binding{b}})
	}
	return ones
}

// The fuzz target on many random inputs, in every run.
func TestTableRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	changes := 0
	for range 300 {
		data := make([]byte, 1000)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		changes += checkTable(t, &choices{data})
	}
	if changes < 2000 {
		t.Errorf("only %d changes were legal: the test tests little", changes)
	}
}

func TestRouteErrors(t *testing.T) {
	table := mustTable(t, Topology{
		Exchanges: []Exchange{{Name: "later", Kind: "x-later"}, {Name: "first", Kind: Fanout}},
		Queues:    []Queue{{Name: "q"}},
		Bindings:  []Binding{{Exchange: "first", ToExchange: "later"}, {Exchange: "first", Queue: "q"}, {Exchange: "later", Queue: "q", Key: "#.#.#"}},
	})
	for _, c := range []struct {
		exchange string
		header   map[string]any
		want     error
		says     string
	}{
		{"gone", nil, ErrNoExchange, "gone"},
		{DefaultExchange, nil, ErrNoExchange, DefaultExchange},
		{"later", nil, errors.ErrUnsupported, "x-later"},
		{"first", nil, errors.ErrUnsupported, "x-later"},
		{"", map[string]any{"CC": "k"}, ErrInvalid, "CC"},
		{"", map[string]any{"BCC": []any{"k", 1}}, ErrInvalid, "BCC"},
		{"", map[string]any{"CC": nil}, ErrInvalid, "CC"},
	} {
		got, err := table.Route([]string{"kept"}, c.exchange, "q", c.header)
		if !errors.Is(err, c.want) || !strings.Contains(fmt.Sprint(err), c.says) || !slices.Equal(got, []string{"kept"}) {
			t.Errorf("Route to %q with %v: %q, %v: want %v, naming %s", c.exchange, c.header, got, err, c.want, c.says)
		}
	}
	if got := routed(t, table, "", "q", map[string]any{"BCC": []any{}}); got != "q" {
		t.Errorf("the table is the worse for errors: %q", got)
	}
}

func TestApply(t *testing.T) {
	top := Topology{
		Exchanges: []Exchange{{Name: "x", Kind: Direct, Alternate: "amq.fanout"}, {Name: "y", Kind: Headers}},
		Queues:    []Queue{{Name: "q"}, {Name: "r", DeadLetterExchange: "later", Args: map[string]any{"n": 1}}},
		Bindings: []Binding{
			{Exchange: "x", Queue: "q", Key: "a.#"},
			{Exchange: "x", ToExchange: "x", Key: "a.#"},
			{Exchange: "x", ToExchange: "y", Key: "k"},
			{Exchange: "amq.fanout", Queue: "r"},
			{Exchange: "y", Queue: "r", Args: map[string]any{"x-match": "any", "h": int8(1)}},
			{Exchange: "y", Queue: "r", Args: map[string]any{"x-match": "any", "h": int64(1)}}, // the same
			{Exchange: "y", Queue: "r", Args: map[string]any{"x-match": "any", "h": "1"}},
		},
	}
	first := mustTable(t, top)
	if n := len(first.Topology().Bindings); n != 6 {
		t.Errorf("%d bindings, want 6", n)
	}
	apply := func(table *Table, add, remove Topology) *Table {
		t.Helper()
		next, err := table.Apply(add, remove)
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	same := func(what, got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("%s: routed to %q, want %q", what, got, want)
		}
	}
	h := map[string]any{"h": 1}
	same("alternate", routed(t, first, "x", "none", nil), "r")
	same("headers", routed(t, first, "x", "k", h), "r")
	same("headers that match nothing", routed(t, first, "x", "k", nil), "")
	same("a direct key is no pattern", routed(t, first, "x", "a.b", nil), "r")
	// Declared as another kind, an exchange keeps its bindings.
	topic := apply(first, Topology{Exchanges: []Exchange{{Name: "x", Kind: Topic}}}, Topology{})
	same("as a topic exchange", routed(t, topic, "x", "a.b", nil), "q")
	same("before", routed(t, first, "x", "a.b", nil), "r")
	// One of two bindings that differ in their arguments.
	less := apply(first, Topology{}, Topology{Bindings: top.Bindings[4:5]})
	same("binding removed", routed(t, less, "y", "", h), "")
	same("the other stays", routed(t, less, "y", "", map[string]any{"h": "1"}), "r")
	// An exchange takes its bindings along, and does not get them back.
	gone := apply(first, top, Topology{Exchanges: top.Exchanges[1:]})
	gone = apply(gone, Topology{}, Topology{Exchanges: top.Exchanges[1:]})
	gone = apply(gone, Topology{Exchanges: top.Exchanges[1:]}, Topology{})
	same("exchange declared anew", routed(t, gone, "x", "k", h), "r") // by the alternate
	if n := len(slices.Collect(gone.BindingsFrom("y"))) + len(slices.Collect(gone.BindingsFrom("x"))); n != 2 {
		t.Errorf("%d bindings lead from x and y, want 2", n)
	}
	noQueue := apply(first, Topology{Queues: top.Queues[1:]}, Topology{Queues: top.Queues[1:]})
	same("queue declared anew", routed(t, noQueue, "x", "none", nil), "")
	if n := len(slices.Collect(noQueue.BindingsTo("r"))); n != 0 {
		t.Errorf("%d bindings lead to r, want 0", n)
	}
	// What is returned is the caller's.
	q, _ := first.Queue("r")
	q.Args["n"] = "changed"
	if q, ok := first.Queue("r"); !ok || q.Args["n"] != int64(1) {
		t.Errorf("Queue returned %+v, %v", q, ok)
	}
	for _, c := range []struct {
		what        string
		add, remove Topology
		want        error
	}{
		{"an amq.* exchange removed", Topology{}, Topology{Exchanges: []Exchange{{Name: "amq.topic"}}}, ErrInvalid},
		{"a binding from nowhere", Topology{Bindings: []Binding{{Exchange: "no", Queue: "q"}}}, Topology{}, ErrNoExchange},
		{"a binding to no exchange", Topology{Bindings: []Binding{{Exchange: "x", ToExchange: "no"}}}, Topology{}, ErrNoExchange},
		{"a binding to no queue", Topology{Bindings: []Binding{{Exchange: "x", Queue: "no"}}}, Topology{}, ErrNoQueue},
		{"a third #", Topology{Bindings: []Binding{{Exchange: "amq.topic", Queue: "q", Key: "#.#.#"}}}, Topology{}, ErrInvalid},
		{"a third # by another kind", Topology{Exchanges: []Exchange{{Name: "y", Kind: Topic}}, Bindings: []Binding{{Exchange: "y", Queue: "q", Key: "#.#.#"}}}, Topology{}, ErrInvalid},
	} {
		if next, err := first.Apply(c.add, c.remove); !errors.Is(err, c.want) || next != nil {
			t.Errorf("%s: %v, want %v", c.what, err, c.want)
		}
	}
}

// Many queues found at once, over several exchanges that all lead to all.
func TestRouteOnce(t *testing.T) {
	top := Topology{Exchanges: []Exchange{{Name: "a", Kind: Fanout}, {Name: "b", Kind: Fanout}}}
	top.Bindings = []Binding{{Exchange: "a", ToExchange: "b"}, {Exchange: "b", ToExchange: "a"}}
	for i := range 5000 {
		q := fmt.Sprint("q", i)
		top.Queues = append(top.Queues, Queue{Name: q})
		top.Bindings = append(top.Bindings, Binding{Exchange: "a", Queue: q}, Binding{Exchange: "a", Queue: q, Key: "k"}, Binding{Exchange: "b", Queue: q})
	}
	table := mustTable(t, top)
	for range 3 {
		got, err := table.Route(nil, "a", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(got)
		if len(got) != 5000 || len(slices.Compact(got)) != 5000 {
			t.Fatalf("%d queues, %d different: want 5000", len(got), len(slices.Compact(got)))
		}
		if got := routed(t, table, "", "q7", nil); got != "q7" {
			t.Fatalf("a message behind it: %q", got)
		}
	}
}

// Readers of one table do not see what makes others of it.
func TestRouteDuringApply(t *testing.T) {
	top := Topology{Exchanges: []Exchange{{Name: "x", Kind: Topic}}, Queues: []Queue{{Name: "q"}, {Name: "r"}}}
	for i := range 600 {
		top.Bindings = append(top.Bindings, Binding{Exchange: "x", Queue: "q", Key: fmt.Sprint("a.", i)})
	}
	table := mustTable(t, top)
	var readers, writers sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				for key, want := range map[string]string{"a.1": "q", "a.599": "q", "b.1": ""} {
					if got, err := table.Route(nil, "x", key, nil); err != nil || strings.Join(got, " ") != want {
						t.Errorf("key %q: %q, %v: want %q", key, got, err, want)
						return
					}
				}
			}
		})
	}
	for range 2 {
		writers.Go(func() {
			mine := table
			var err error
			for i := range 400 {
				add := Topology{Bindings: []Binding{{Exchange: "x", Queue: "r", Key: fmt.Sprint("b.", i)}}}
				if mine, err = mine.Apply(add, Topology{Bindings: top.Bindings[i : i+1]}); err != nil {
					t.Error(err)
					return
				}
				if got, _ := mine.Route(nil, "x", fmt.Sprint("b.", i), nil); len(got) != 1 || got[0] != "r" {
					t.Errorf("binding %d is not in force: %q", i, got)
				}
				if got, _ := mine.Route(nil, "x", fmt.Sprint("a.", i), nil); len(got) != 0 {
					t.Errorf("binding %d is still in force: %q", i, got)
				}
			}
		})
	}
	writers.Wait()
	close(done)
	readers.Wait()
}
