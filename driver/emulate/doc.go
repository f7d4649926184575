// Package emulate gives exchanges to a broker that only has queues: a backend
// implements [Store], and [New] makes a driver.Conn of it.
//
// The store keeps two things. The topology of a namespace is a set of small
// named elements under one version, changed by compare-and-set. A queue is
// storage for messages under a name of its own, its incarnation, so that
// nothing meant for a queue that was deleted lands in one made anew under the
// same name. The store knows nothing of exchanges, keys or dead letters.
//
// A message's way: a publisher routes it in this process by a compiled copy of
// the topology, hands one [Parcel] for each queue to Store.Append, and resolves
// it when every parcel is Done. A parcel whose outcome is unknown is sent again
// under the same ID; one whose queue is gone is routed again. A consumer of the
// store puts messages into an [Inbox], whose holds the subscriber extends until
// they are settled. What is given up is routed anew from the dead-letter
// exchange, and acknowledged when all its targets have it.
//
// # In force everywhere
//
// That a binding is in force in every process when Bind returns rests on
// leases. Every publishing client keeps a record in the broker that names the
// version it routes by, and renews it every second; the broker takes a renewal
// only while that version is current. A client whose renewal is refused loads
// what changed, routes by it from then on, and only then renews. It routes by
// its copy for less than [LeaseTime] after it sent the last renewal that was
// taken; without a valid lease publishes wait. Whoever changes the topology
// returns when every record names the new version or a later one, or when a
// record has been seen to name an older one for longer than LeaseTime, since
// it cannot have been renewed in that time. After the broker's store may have
// forgotten records, everybody waits for one whole lease.
//
// Beyond this are a machine that is frozen together with its clock, and a
// broker of which two parts both take writes.
//
// # What happens by itself
//
// Of all connections to a namespace one leads (Store.Lead): its janitor takes
// from the queues what is expired or pushed out and has a dead-letter exchange,
// and deletes queues that nobody uses or whose owner is gone. Every connection
// that routes also takes part in routing delayed messages, which wait in a
// queue of the library's own.
//
// # Goroutines
//
// A connection has two: the keeper of its lease, and the retrier of what did
// not work at once. There is a third, the janitor, from when the topology has a
// queue that changes by itself; one, with a subscriber of its own, from when a
// message was delayed; and one for as long as exclusive queues are made anew
// after a lost connection. A subscriber has one, which extends holds and moves
// dead letters. Stores add their own.
package emulate
