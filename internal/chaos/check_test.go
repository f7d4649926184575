package chaos

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestCheck: each broken promise is found in ledgers that show it, and is not where
// a fault explains it; a loss has no excuse.
func TestCheck(t *testing.T) {
	const published = "p1.1: 1 i p1.1/0 a.1; 2 o p1.1/0 confirmed; 3 i p1.1/1 a.2; 4 o p1.1/1 confirmed; 3 i p1.1/2 r.1; 4 o p1.1/2 rejected\n"
	const both = "c2.1: 5 d both p1.1/0 1 false ack; 6 d both p1.1/1 1 false ack\n"
	const well = published + both + "c1.1: 5 d a p1.1/0 1 false ack; 6 d a p1.1/1 1 false ack\n"
	pause := &fault{step: step{kind: pause}, begun: second(2), over: second(3)}
	slow := &fault{step: step{kind: latency}, begun: second(2), over: second(3)}
	for _, test := range []struct {
		name, ledgers string
		fault         *fault
		want          string // a part of the only violation; "": none
	}{
		{"well", well, nil, ""},
		{"lost", published + both + "c1.1: 5 d a p1.1/0 1 false ack\n", nil, "lost: p1.1/1 in a"},
		{"lost in a fault", published + both + "c1.1: 5 d a p1.1/0 1 false ack\n", pause, "lost: p1.1/1 in a"},
		{"refused", well + "c1.1: 7 d small p1.1/2 1 false ack\n", nil, "refused, and delivered"},
		{"refused in a fault", well + "c1.1: 7 d small p1.1/2 1 false ack\n", pause, "refused, and delivered"},
		{"made up", well + "c1.1: 7 d a p9.1/2 1 false ack\n", nil, "nobody has published"},
		{"unroutable", well + "p1.1: 7 i p1.1/3 a.1; 8 o p1.1/3 unroutable\n", pause, "the outcome of p1.1/3 is unroutable"},
		{"order", published + both + "c1.1: 5 d a p1.1/1 1 false ack; 6 d a p1.1/0 1 false ack\n", nil, "order: p1.1/0 came to a after p1.1/1"},
		{"order in a fault", published + both + "c1.1: 5 d a p1.1/1 1 false ack; 6 d a p1.1/0 1 false ack\n", pause, ""},
		{"order, slow", published + both + "c1.1: 5 d a p1.1/1 1 false ack; 6 d a p1.1/0 1 false ack\n", slow, "order: p1.1/0"},
		{"order of what came again", published + both + "c1.1: 5 d a p1.1/1 1 false ack; 6 d a p1.1/0 2 true ack\n", pause, ""},
		{"first attempt", published + both + "c1.1: 5 d a p1.1/0 2 false ack; 6 d a p1.1/1 1 false ack\n", nil, "attempt 2 of p1.1/0 in a at its delivery number 1"},
		{"no attempt", published + both + "c1.1: 5 d a p1.1/0 0 false ack; 6 d a p1.1/1 1 false ack\n", pause, "attempt 0 of p1.1/0"},
		{"attempt after a nack", published + both + "c1.1: 5 d a p1.1/0 1 false nack; 6 d a p1.1/0 1 true ack; 7 d a p1.1/1 1 false ack\n", nil, "attempt 1 of p1.1/0 in a after a nack of attempt 1"},
		{"attempt after a nack, well", published + both + "c1.1: 5 d a p1.1/0 1 false nack; 6 d a p1.1/0 2 true ack; 7 d a p1.1/1 1 false ack\n", nil, ""},
		{"held twice", well + "c2.1: 10 d both p1.1/3 1 false hold; 20 s both p1.1/3\nc1.1: 15 d both p1.1/3 2 true ack\np1.1: 9 i p1.1/3 c.1; 9 o p1.1/3 unknown\n", nil, "held twice: p1.1/3 in both by c2.1"},
		{"held twice, lost", well + "c2.1: 10 d both p1.1/3 1 false hold; 14 c disconnected; 20 s both p1.1/3\nc1.1: 15 d both p1.1/3 2 true ack\np1.1: 9 i p1.1/3 c.1; 9 o p1.1/3 unknown\n", nil, ""},
		{"held on", well + "c2.1: 10 d both p1.1/3 1 false hold; 20 s both p1.1/3\nc1.1: 21 d both p1.1/3 2 true ack\np1.1: 9 i p1.1/3 c.1; 9 o p1.1/3 unknown\n", nil, ""},
		{"gave up", well + "c2.1: 10 x no idea\n", nil, "the client c2.1 gave up: no idea"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRecord()
			if test.fault != nil {
				r.faults = []*fault{test.fault}
			}
			dir := t.TempDir()
			for lines := range strings.Lines(test.ledgers) {
				name, lines, _ := strings.Cut(strings.TrimSpace(lines), ": ")
				appendLedger(t, filepath.Join(dir, name+ledgerSuffix), lines)
				if err := r.read(dir); err != nil { // in pieces, as in a run
					t.Fatal(err)
				}
			}
			r.check()
			switch {
			case test.want == "" && len(r.violations) > 0:
				t.Errorf("found %q", r.violations)
			case test.want != "" && (len(r.violations) != 1 || !strings.Contains(r.violations[0], test.want)):
				t.Errorf("found %q, want %q", r.violations, test.want)
			}
		})
	}
}

// second is a time n seconds after the tests' own begin.
func second(n int64) time.Time { return time.Unix(n, 0) }

// appendLedger writes lines that begin with seconds.
func appendLedger(t *testing.T, name, lines string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for line := range strings.SplitSeq(lines, "; ") {
		at, rest, _ := strings.Cut(line, " ")
		if _, err := fmt.Fprintf(f, "%s000000000 %s\n", at, rest); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSchedule: a seed repeats its schedule, and each kind comes once before any
// comes again, whatever the seed.
func TestSchedule(t *testing.T) {
	for seed := range uint64(100) {
		one, two := newSchedule(seed, together, 3), newSchedule(seed, together, 3)
		seen := map[kind]int{}
		victims := 0
		for range together {
			st := one.next()
			if st != two.next() {
				t.Fatal("the same seed draws something else")
			}
			seen[st.kind]++
			if st.victim >= 0 {
				victims++
			}
		}
		if len(seen) != len(together) || victims == 0 || one.first() {
			t.Fatalf("the first round of the seed %d is %v", seed, seen)
		}
	}
}
