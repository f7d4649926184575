package routing

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
)

// The recorded routes of real RabbitMQs.
type vectors struct {
	Broker string
	Cases  []vectorCase
}

type vectorCase struct {
	Exchanges []struct {
		Name, Kind, Alternate string
	}
	Queues   []string
	Bindings []struct {
		Source, Dest, Key string
		ToExchange        bool `json:"to_exchange"`
		Args              map[string]vectorValue
	}
	Messages []struct {
		Exchange, Key string
		Headers       map[string]vectorValue
		CC, BCC       []string
		Queues        []string
		Returned      bool
	}
}

type vectorValue struct {
	T string
	V any
}

func (v vectorValue) value(t testing.TB) any {
	switch v.T {
	case "string", "bool":
		return v.V
	case "int32":
		return int32(v.V.(float64))
	case "int64":
		return int64(v.V.(float64))
	case "double":
		return v.V.(float64)
	case "void":
		return nil
	}
	t.Fatalf("unknown type %q in the vectors", v.T)
	return nil
}

func vectorTable(t testing.TB, vs map[string]vectorValue) map[string]any {
	if vs == nil {
		return nil
	}
	m := make(map[string]any)
	for k, v := range vs {
		m[k] = v.value(t)
	}
	return m
}

func (c vectorCase) topology(t testing.TB) Topology {
	var top Topology
	for _, x := range c.Exchanges {
		top.Exchanges = append(top.Exchanges, Exchange{Name: x.Name, Kind: Kind(x.Kind), Alternate: x.Alternate})
	}
	for _, q := range c.Queues {
		top.Queues = append(top.Queues, Queue{Name: q})
	}
	for _, b := range c.Bindings {
		d := Binding{Exchange: b.Source, Key: b.Key, Args: vectorTable(t, b.Args)}
		if b.ToExchange {
			d.ToExchange = b.Dest
		} else {
			d.Queue = b.Dest
		}
		top.Bindings = append(top.Bindings, d)
	}
	return top
}

func (c vectorCase) check(t *testing.T, table *Table) int {
	t.Helper()
	for i, m := range c.Messages {
		header := vectorTable(t, m.Headers)
		for name, keys := range map[string][]string{"CC": m.CC, "BCC": m.BCC} {
			if keys != nil {
				if header == nil {
					header = map[string]any{}
				}
				list := []any{}
				for _, key := range keys {
					list = append(list, key)
				}
				header[name] = list
			}
		}
		got, err := table.Route(nil, m.Exchange, m.Key, header)
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		slices.Sort(got)
		if !slices.Equal(got, m.Queues) || (len(got) == 0) != m.Returned {
			t.Errorf("message %d: exchange %q, key %q, header %v: got %q, RabbitMQ: %q, returned %v", i, m.Exchange, m.Key, header, got, m.Queues, m.Returned)
		}
	}
	return len(c.Messages)
}

func loadVectors(t testing.TB) []vectorCase {
	data, err := os.ReadFile("testdata/routing.json")
	if err != nil {
		t.Fatal(err)
	}
	var v vectors
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v.Cases
}

func TestVectors(t *testing.T) {
	routed := 0
	for i, c := range loadVectors(t) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			top := c.topology(t)
			if err := top.Validate(); err != nil {
				t.Fatal(err)
			}
			table, err := NewTable(top)
			if err != nil {
				t.Fatal(err)
			}
			routed += c.check(t, table)
			c.check(t, flattened(table))
		})
	}
	if routed < 6000 {
		t.Errorf("%d messages were routed: want all 6000", routed)
	}
}

// flattened is t with the topic bindings compiled, however few they are.
func flattened(t *Table) *Table {
	c := &Table{queues: t.queues}
	t.exchanges.each(func(leaf any) {
		x := *leaf.(*exchange)
		if _, ok := x.out.(*topicIndex); ok {
			var all []*binding
			x.out.each(func(b *binding) { all = append(all, b) })
			x.out = &topicIndex{flat: newFlat(all)}
		}
		c.exchanges = c.exchanges.put(byName{}, x.at.hash, &x, true)
	})
	return c
}

// The same, through tables that were reached by small changes in random order,
// with random elements removed and put back on the way.
func TestVectorsStepwise(t *testing.T) {
	for i, c := range loadVectors(t) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(uint64(i), 1))
			top := c.topology(t)
			want, err := NewTable(top)
			if err != nil {
				t.Fatal(err)
			}
			table, err := NewTable(Topology{})
			if err != nil {
				t.Fatal(err)
			}
			apply := func(add, remove Topology) {
				t.Helper()
				if table, err = table.Apply(add, remove); err != nil {
					t.Fatal(err)
				}
			}
			shuffle(rng, top.Exchanges)
			shuffle(rng, top.Queues)
			shuffle(rng, top.Bindings)
			for _, x := range top.Exchanges {
				apply(Topology{Exchanges: []Exchange{x}}, Topology{})
			}
			for _, q := range top.Queues {
				apply(Topology{Queues: []Queue{q}}, Topology{})
			}
			for _, b := range top.Bindings {
				apply(Topology{Bindings: []Binding{b}}, Topology{})
			}
			c.check(t, table)
			for range 5 {
				gone := Topology{}
				switch n := rng.IntN(3); {
				case n == 0:
					gone.Exchanges = sample(rng, top.Exchanges)
				case n == 1:
					gone.Queues = sample(rng, top.Queues)
				default:
					gone.Bindings = sample(rng, top.Bindings)
				}
				apply(Topology{}, gone)
				for _, x := range gone.Exchanges {
					if _, ok := table.Exchange(x.Name); ok {
						t.Errorf("exchange %q is still there", x.Name)
					}
				}
				for _, b := range gone.Bindings {
					if table.Has(b) {
						t.Errorf("%v is still there", b)
					}
				}
				apply(top, Topology{})
			}
			c.check(t, table)
			c.check(t, flattened(table))
			if got, want := fmt.Sprintf("%+v", table.Topology()), fmt.Sprintf("%+v", want.Topology()); got != want {
				t.Errorf("after changes: %s\nwant %s", got, want)
			}
		})
	}
}

func shuffle[E any](rng *rand.Rand, s []E) {
	rng.Shuffle(len(s), func(i, j int) { s[i], s[j] = s[j], s[i] })
}

func sample[E any](rng *rand.Rand, s []E) (some []E) {
	for _, e := range s {
		if rng.IntN(2) == 0 {
			some = append(some, e)
		}
	}
	return some
}
