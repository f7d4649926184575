package oracle

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq"
)

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
