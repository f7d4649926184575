package oracle

import "sync"

// tally counts. It is safe for concurrent use.
type tally struct {
	mu sync.Mutex
	n  map[string]int
}

func newTally() *tally { return &tally{n: map[string]int{}} }

func (t *tally) add(name string, n int) {
	if t == nil || n == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n[name] += n
}

func (t *tally) merge(o *tally) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for name, n := range o.n {
		t.add(name, n)
	}
}

func (t *tally) of(name string) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.n[name]
}
