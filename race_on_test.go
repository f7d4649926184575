//go:build race

package polymq_test

// The race detector allocates, so counts of allocations say nothing under it.
const raceEnabled = true
