//go:build race

package emulate

// The race detector's own: sync.Pool forgets at random.
const raceAllocations = 2.5
