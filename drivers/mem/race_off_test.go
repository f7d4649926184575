//go:build !race

package mem

const raceAllocations = 0
