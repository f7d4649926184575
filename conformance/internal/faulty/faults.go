package faulty

import "slices"

// Faults is every fault, in the order of the promises that they break.
func Faults() []Fault {
	all := slices.Concat(publishFaults, topologyFaults, consumeFaults, settleFaults, lifecycleFaults)
	slices.SortStableFunc(all, func(a, b Fault) int { return a.Promise - b.Promise })
	return all
}
