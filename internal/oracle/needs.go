package oracle

import (
	"maps"
	"slices"

	"github.com/polymq/polymq"
)

// needs are the features that a script asks of a backend.
func needs(s Script) []polymq.Feature {
	need := map[polymq.Feature]bool{}
	note := func(f polymq.Feature, b bool) {
		if b {
			need[f] = true
		}
	}
	for _, op := range s.Ops {
		switch o := op.(type) {
		case Declare:
			for _, q := range o.Topology.Queues {
				note(polymq.FeatureTTL, q.TTL > 0)
				note(polymq.FeatureQueueExpiry, q.Expires > 0)
				note(polymq.FeatureMaxLength, q.MaxLength > 0 || q.MaxBytes > 0)
				note(polymq.FeaturePriority, q.MaxPriority > 0)
				note(polymq.FeatureSingleActiveConsumer, q.SingleActiveConsumer)
				note(polymq.FeatureExclusive, q.Exclusive)
				note(polymq.FeatureAutoDelete, q.AutoDelete)
				note(polymq.FeatureMaxAttempts, q.MaxAttempts > 0)
				note(polymq.FeatureDeadLetter, q.DeadLetterExchange != "")
			}
		case Publish:
			for _, m := range o.Messages {
				note(polymq.FeatureTTL, m.TTL > 0)
				note(polymq.FeatureDelay, m.Delay > 0)
			}
		case Settle:
			note(polymq.FeatureDelayedNack, o.Delay > 0)
		}
	}
	return slices.Sorted(maps.Keys(need))
}

// lacks is the first feature that a script needs and a backend refuses; ""
// for none.
func (l *library) lacks(s Script) polymq.Feature {
	f := l.conns[0].Features()
	for _, need := range needs(s) {
		if !f.Has(need) {
			return need
		}
	}
	return ""
}
