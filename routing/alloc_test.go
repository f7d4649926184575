//go:build !race

package routing

import "testing"

// The race detector makes sync.Pool forget, so this is no part of its runs.
func TestRouteAllocatesNothing(t *testing.T) {
	table := mustTable(t, benchTopology(1000))
	dst := make([]string, 0, 64)
	for _, m := range benchMessages {
		if n := testing.AllocsPerRun(200, func() { dst, _ = table.Route(dst[:0], m.exchange, m.key, m.header) }); n != 0 {
			t.Errorf("%s: %v allocations a message", m.kind, n)
		}
	}
	hash := mustTable(t, hashTopology("1", "2", "3"))
	if n := testing.AllocsPerRun(200, func() { dst, _ = hash.Route(dst[:0], "x", "key", nil, Properties{ID: "id"}) }); n != 0 {
		t.Errorf("consistent hash: %v allocations a message", n)
	}
}
