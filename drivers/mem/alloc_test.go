//go:build !race

package mem

import "testing"

// TestAllocations: a message costs its delivery, with the copy of the body in it;
// the queue's copy lies where an earlier one was.
func TestAllocations(t *testing.T) {
	const rounds = 200
	for size, limit := range map[int]float64{1: 1, 100: 1} {
		l := newLoop(t, size, 256)
		ids := l.freshIDs((rounds + 100) * size)
		next := 0
		round := func() {
			l.run(ids[next:])
			next += size
		}
		for range 50 {
			round()
		}
		if n := testing.AllocsPerRun(rounds, round) / float64(size); n > limit {
			t.Errorf("%.2f allocations a message in batches of %d, want at most %.0f", n, size, limit)
		}
		if err := l.c.Close(t.Context()); err != nil {
			t.Error(err)
		}
		Remove(t.Name())
	}
}
