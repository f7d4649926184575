package routing

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
)

// hashTopology has a queue for each weight.
func hashTopology(weights ...string) Topology {
	t := Topology{Exchanges: []Exchange{{Name: "x", Kind: ConsistentHash}}}
	for i, w := range weights {
		q := fmt.Sprint("q", i)
		t.Queues = append(t.Queues, Queue{Name: q})
		t.Bindings = append(t.Bindings, Binding{Exchange: "x", Queue: q, Key: w})
	}
	return t
}

// What is stored in brokers is routed by it: the way of a key must never change.
func TestConsistentHashIsFixed(t *testing.T) {
	for _, tc := range []struct {
		weights []string
		want    string
	}{
		{[]string{"1", "1", "1"}, hashWays},
		{[]string{"1", "2", "7"}, hashWaysUneven},
	} {
		table := mustTable(t, hashTopology(tc.weights...))
		var got string
		for i := range 40 {
			queues, err := table.Route(nil, "x", fmt.Sprint("key ", i), nil)
			if err != nil || len(queues) != 1 {
				t.Fatal(queues, err)
			}
			got += queues[0][1:]
		}
		if got != tc.want {
			t.Errorf("with the weights %v the keys go %s, want %s", tc.weights, got, tc.want)
		}
	}
}

func TestNegLog(t *testing.T) {
	for draw := uint64(1); draw != 0; draw <<= 1 {
		for _, d := range []uint64{draw, draw + draw/3, draw | draw>>1} {
			got, want := negLog(d), -math.Log(float64(d|1)/(1<<64))
			if math.Abs(got-want) > 1e-9*(1+want) {
				t.Errorf("-ln of %d is %v, want %v", d, got, want)
			}
		}
	}
}

func TestConsistentHashRefuses(t *testing.T) {
	for _, key := range []string{"", "0", "-1", "ten", "01", "1.5", "9999999999"} {
		if err := hashTopology(key).Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "weight") {
			t.Errorf("weight %q: %v", key, err)
		}
		if _, err := NewTable(hashTopology(key)); !errors.Is(err, ErrInvalid) {
			t.Errorf("a table with the weight %q: %v", key, err)
		}
	}
	for _, args := range []map[string]any{{"hash-header": 7}, {"hash-header": ""}, {"hash-property": "app_id"}, {"other": "x"}, {"hash-header": "a", "hash-property": "message_id"}} {
		if err := (Exchange{Name: "x", Kind: ConsistentHash, Args: args}).Validate(); !errors.Is(err, ErrInvalid) {
			t.Errorf("arguments %v: %v", args, err)
		}
	}
}

// firstRule takes the bindings whose key a routing key begins with.
type firstRule struct{}

func (firstRule) CheckExchange(Exchange) error { return nil }
func (firstRule) CheckBinding(b Binding) error {
	if b.Key == "" {
		return fmt.Errorf("Key: %w: empty", ErrInvalid)
	}
	return nil
}
func (firstRule) Compile(_ Exchange, bs []Binding) Matcher { return firstMatcher(bs) }

type firstMatcher []Binding

func (bs firstMatcher) Match(dst []int, m *Message) []int {
	for i, b := range bs {
		if strings.HasPrefix(m.Keys[0], b.Key) {
			dst = append(dst, i)
		}
	}
	return dst
}

func TestRegisterKind(t *testing.T) {
	kind := Kind("x-prefix-" + rand.Text()) // new in each run of the test
	top := Topology{
		Exchanges: []Exchange{{Name: "x", Kind: kind, Alternate: "rest"}, {Name: "rest", Kind: Fanout}},
		Queues:    []Queue{{Name: "a"}, {Name: "ab"}, {Name: "others"}},
		Bindings:  []Binding{{Exchange: "x", Queue: "a", Key: "a"}, {Exchange: "x", Queue: "ab", Key: "ab"}, {Exchange: "rest", Queue: "others"}},
	}
	if err := top.Validate(); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "RegisterKind") {
		t.Errorf("before it is registered: %v", err)
	}
	if _, err := mustTable(t, top).Route(nil, "x", "a", nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("before it is registered, Route: %v", err)
	}
	RegisterKind(kind, firstRule{})
	table := mustTable(t, top)
	for key, want := range map[string]int{"a": 1, "abc": 2, "z": 1} {
		if got, err := table.Route(nil, "x", key, nil); err != nil || len(got) != want {
			t.Errorf("key %q goes to %v, %v", key, got, err)
		}
	}
	next, err := table.Apply(Topology{}, Topology{Bindings: top.Bindings[:1]})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := next.Route(nil, "x", "abc", nil); len(got) != 1 || got[0] != "ab" {
		t.Errorf("after a binding has gone: %v", got)
	}
	if got, _ := table.Route(nil, "x", "abc", nil); len(got) != 2 {
		t.Errorf("the table before changed: %v", got)
	}
	if _, err := table.Apply(Topology{Bindings: []Binding{{Exchange: "x", Queue: "a"}}}, Topology{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a binding that the rule refuses: %v", err)
	}
	for name, register := range map[string]func(){
		"twice": func() { RegisterKind(kind, firstRule{}) }, "nil": func() { RegisterKind("x-nil", nil) },
		"AMQP's own": func() { RegisterKind(Topic, firstRule{}) }, "empty": func() { RegisterKind("", firstRule{}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("registered %s", name)
				}
			}()
			register()
		}()
	}
}

const (
	hashWays       = "2101121011000010021002112002222222120000"
	hashWaysUneven = "2101121222222212022222112022222222222020"
)
