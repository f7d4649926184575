package faulty

import "slices"

// Faults is every fault, in the order of the promises that they break.
func Faults() []Fault {
	all := slices.Concat(publishFaults, topologyFaults, consumeFaults, settleFaults, lifecycleFaults,
		expiryFaults, limitFaults, orderFaults, temporaryFaults, delayFaults, redriveFaults)
	slices.SortStableFunc(all, func(a, b Fault) int { return a.Promise - b.Promise })
	return all
}
