package driver

import "time"

// Support says how a backend has a feature.
type Support string

// The kinds of support. What is Refused answers with errors.ErrUnsupported.
const (
	Native   Support = "native"   // the broker does it
	Emulated Support = "emulated" // polymq does it, with the same effect
	Refused  Support = "refused"  // asked for, it is an error
)

// Feature names something that a backend has or refuses. The conformance
// suite enforces both.
type Feature string

// The features.
const (
	Routing      Feature = "routing"                // exchanges, bindings, the default exchange
	Unroutable   Feature = "unroutable"             // a message that no queue takes is heard of
	Confirms     Feature = "confirms"               // Publish returns when the queues have the message
	Dedup        Feature = "dedup"                  // a second publish of one ID within DedupWindow leaves no second copy
	Attempts     Feature = "attempts"               // Delivery.Attempt counts
	MaxAttempts  Feature = "max-attempts"           // Queue.MaxAttempts
	DeadLetter   Feature = "dead-letter"            // Queue.DeadLetterExchange
	DelayedNack  Feature = "delayed-nack"           // Nack with a delay
	Delay        Feature = "delay"                  // Message.Delay
	TTL          Feature = "ttl"                    // Message.TTL and Queue.TTL
	Expires      Feature = "queue-expiry"           // Queue.Expires
	MaxLength    Feature = "max-length"             // Queue.MaxLength and Queue.MaxBytes, with either Overflow
	Priority     Feature = "priority"               // Queue.MaxPriority
	SingleActive Feature = "single-active-consumer" // Queue.SingleActiveConsumer
	Exclusive    Feature = "exclusive"              // Queue.Exclusive
	AutoDelete   Feature = "auto-delete"            // Queue.AutoDelete
	ReadBack     Feature = "topology"               // Conn.Topology
	Inspect      Feature = "inspect"                // Conn.Inspect
	Purge        Feature = "purge"                  // Conn.Purge
)

// AllFeatures is every feature, in the order in which tables show them.
var AllFeatures = []Feature{Routing, Unroutable, Confirms, Dedup, Attempts, MaxAttempts, DeadLetter, DelayedNack, Delay, TTL, Expires, MaxLength, Priority, SingleActive, Exclusive, AutoDelete, ReadBack, Inspect, Purge}

// Features is what a backend declares: it does what it declares, and refuses
// the rest.
type Features struct {
	// Backend is the broker's name and version, for people: "RabbitMQ 3.10.8".
	Backend string
	// Support holds an entry for every feature of AllFeatures.
	Support map[Feature]Support
	// MaxMessageBytes is the largest body that is accepted; a larger one is
	// ErrTooLarge.
	MaxMessageBytes int
	// DedupWindow is how long a publish with the same ID leaves no second
	// copy. 0: retries of publishes whose outcome was unknown can leave two.
	DedupWindow time.Duration
	// Lease is how long after the death of its process a held message comes
	// again. 0: at once.
	Lease time.Duration
	// HoldLimit is the longest that a message can be held, whatever the
	// library does (RabbitMQ's consumer timeout). 0: no limit.
	HoldLimit time.Duration
	// CountsReturned says that Delivery.Attempt also counts messages that
	// were only prefetched and given back (RabbitMQ quorum queues before 4.3).
	CountsReturned bool
	// PlainPriorities says that queues without MaxPriority mind
	// Message.Priority all the same (RabbitMQ's quorum queues from 4.0 on):
	// messages of one priority are in order there, others may pass them.
	PlainPriorities bool
	// RefusesLate says that a durable queue with Overflow RejectPublish takes one
	// message more than its limit, and some more from publishers that do not
	// wait, and then refuses until a fifth of it has gone (RabbitMQ's quorum
	// queues). Transient queues refuse exactly what is beyond it.
	RefusesLate bool
	// DelayPrecision is how exactly delays are kept: a delayed message comes
	// no earlier than its delay, and, on a broker that is there and idle, not
	// much more than this later.
	DelayPrecision time.Duration
	// Requeue says where a redelivered message stands: "first" (no later than
	// messages that nobody has touched) or "last".
	Requeue string
}

// Has reports whether the backend has f, natively or emulated.
func (f Features) Has(feature Feature) bool {
	s := f.Support[feature]
	return s == Native || s == Emulated
}
