package oracle

import (
	"strings"
	"testing"
)

// TestRecurring: what counts is what a backend shows in two runs, whichever these are.
func TestRecurring(t *testing.T) {
	for _, c := range []struct {
		runs  string // the backends that differed, of each run
		twice string
		once  int
	}{
		{"nats/nats", "nats", 0},
		{"nats/", "", 1},
		{"nats//nats", "nats", 0},
		{"nats//redis", "", 2},
		{"nats,redis/redis", "redis", 1},
		{"nats,redis/redis/redis,nats", "redis,nats", 0},
		{"/mem/mem", "mem", 0},
	} {
		var runs [][]finding
		for _, run := range strings.Split(c.runs, "/") {
			var found []finding
			for _, b := range strings.FieldsFunc(run, func(r rune) bool { return r == ',' }) {
				found = append(found, finding{b, &Difference{}})
			}
			runs = append(runs, found)
		}
		twice, once := recurring(runs...)
		var names []string
		for _, f := range twice {
			names = append(names, f.Backend)
		}
		if got := strings.Join(names, ","); got != c.twice || once != c.once {
			t.Errorf("%s: %q twice, %d once; want %q, %d", c.runs, got, once, c.twice, c.once)
		}
	}
}
