//go:build race

package mem

// The race detector's own: sync.Pool forgets at random.
const raceAllocations = 2.5
