package oracle

import (
	"go/parser"
	"go/token"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// What runs have found, as they printed it.

// An attempt that Close ends counts at once, not for the next subscriber.
func TestSeed46Mem(t *testing.T) {
	replay(t, "mem", Script{Driver: true, Ops: []Op{
		Declare{Topology: routing.Topology{Queues: []routing.Queue{routing.Queue{Name: "q1"}, routing.Queue{Name: "q2", DeadLetterExchange: "amq.default", DeadLetterKey: "q1", MaxAttempts: 1}}}},
		Publish{On: 1, Messages: []polymq.Message{polymq.Message{ID: "m1", Key: "q2", Body: []byte("body 1")}}},
		Subscribe{By: "c1", Queue: "q2", Prefetch: 100},
		Receive{By: "c1"},
		Close{By: "c1"},
		Subscribe{By: "c2", Queue: "q1", Prefetch: 100},
		Receive{By: "c2"},
	}})
}

// A subscriber that closes takes nothing for the room that it makes.
func TestSeed7108Nats(t *testing.T) {
	replay(t, "nats", Script{Classic: true, Ops: []Op{
		Declare{Topology: routing.Topology{Queues: []routing.Queue{routing.Queue{Name: "q1", MaxPriority: 4}}}},
		Publish{On: 1, Messages: []polymq.Message{polymq.Message{ID: "m2", Key: "q1", Body: []byte("body 2"), Priority: 0x3}, polymq.Message{ID: "m3", Key: "q1", Body: []byte("body 3"), Priority: 0x2}}},
		Subscribe{On: 1, By: "c1", Queue: "q1", Prefetch: 2},
		Publish{On: 1, Messages: []polymq.Message{polymq.Message{ID: "m7", Key: "q1", Body: []byte("body 7"), Priority: 0xb}}},
		Receive{By: "c1", Max: 3},
		Close{By: "c1"},
		Subscribe{By: "c2", Queue: "q1", Prefetch: 100},
		Receive{By: "c2"},
	}})
}

// TestPrints: every script prints as Go.
func TestPrints(t *testing.T) {
	for seed := range uint64(300) {
		s, _ := Generate(seed, Options{}, nil)
		text := goTest("Seed", "mem", s)
		if _, err := parser.ParseFile(token.NewFileSet(), "", "package oracle\n"+text, 0); err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, text)
		}
	}
	s := Script{Classic: true, Ops: []Op{
		Publish{Exchange: "x", Messages: []polymq.Message{{ID: "m", Header: polymq.Header{"n": int64(1), "v": nil, "l": []any{true}, "b": []byte("a\x00")}, TTL: 1500 * time.Millisecond, Time: time.Unix(7, 0)}}},
		Wait{},
	}}
	const want = `func TestOne(t *testing.T) {
	replay(t, "redis", Script{Classic: true, Ops: []Op{
		Publish{Exchange: "x", Messages: []polymq.Message{polymq.Message{ID: "m", Header: polymq.Header{"b": []byte("a\x00"), "l": []any{true}, "n": int64(1), "v": nil}, Time: time.Unix(7, 0).UTC(), TTL: 1500 * time.Millisecond}}},
		Wait{},
	}})
}
`
	if got := goTest("One", "redis", s); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestSeeded: a seed makes one script.
func TestSeeded(t *testing.T) {
	about := map[string]bool{}
	for seed := range uint64(300) {
		a, theme := Generate(seed, Options{}, nil)
		b, _ := Generate(seed, Options{}, nil)
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d makes two scripts", seed)
		}
		about[theme] = true
	}
	if len(about) != len(themes) {
		t.Errorf("300 scripts are about %d of %d themes", len(about), len(themes))
	}
}

// TestShrinks: what is left of a script is what fails.
func TestShrinks(t *testing.T) {
	s, _ := Generate(3, Options{}, nil)
	s.Ops = append(s.Ops[:len(s.Ops):len(s.Ops)], Publish{Messages: []polymq.Message{{ID: "a"}, {ID: "culprit", Type: "t", Header: polymq.Header{"h": true}}, {ID: "b"}}}, Wait{})
	small := shrink(s, time.Now().Add(time.Minute), func(try Script) bool {
		return strings.Contains(goTest("T", "mem", try), "culprit")
	})
	want := []Op{Publish{Messages: []polymq.Message{{ID: "culprit"}}}}
	if !reflect.DeepEqual(small.Ops, want) {
		t.Errorf("left: %s", goTest("T", "mem", small))
	}
}

// TestRenamed: two runs share no name, and what they show is the same.
func TestRenamed(t *testing.T) {
	for seed := range uint64(100) {
		s, _ := Generate(seed, Options{}, nil)
		text := goTest("T", "mem", s)
		if got := bare(goTest("T", "mem", renamed(s, "run1.")), "run1."); got != text {
			t.Fatalf("seed %d: renamed and back:\n%s\nwas\n%s", seed, got, text)
		}
	}
}
