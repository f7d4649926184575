//go:build !race

package emulate

const raceAllocations = 0
