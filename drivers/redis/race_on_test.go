//go:build race

package redis

// The race detector allocates, so counts of allocations say nothing under it.
const raceEnabled = true
