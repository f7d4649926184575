package emulate

import (
	"context"
	"errors"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Store is what a backend that only has queues implements; New makes a
// driver.Conn of it. All methods must be safe for concurrent use, must return
// soon after ctx ends, and must return driver.ErrClosed after Close.
//
// A store keeps two things: the topology of its namespace, as named elements
// under one version, and queues, each known by its incarnation. It knows
// nothing of exchanges.
type Store interface {
	// Features declares the store. New fills in what the emulation adds.
	Features() driver.Features

	TopologyStore

	// Attach prepares q.Handle, without I/O, when this process learns of the
	// queue; the store may keep there whatever saves it work per message.
	Attach(q *Queue)
	// CreateQueue makes the queue's storage; doing it again is nothing.
	CreateQueue(ctx context.Context, q *Queue) error
	// DeleteQueue removes the storage with all messages and ends its
	// consumers with driver.ErrNotFound. driver.ErrInUse where a condition of
	// o does not hold; nil where the storage is already gone.
	DeleteQueue(ctx context.Context, q *Queue, o DeleteOptions) error
	// QueueExists reports whether the storage is there.
	QueueExists(ctx context.Context, q *Queue) (bool, error)

	// Append stores each parcel in its queue and calls Done on each exactly
	// once: nil when it is stored as safely as the queue was declared (a
	// parcel with the ID of one stored within the deduplication window is a
	// success and leaves no second copy); driver.ErrRejected where the queue
	// is full and refuses; ErrGone when the queue's storage
	// does not exist, which must never be made anew by it; an error that
	// wraps driver.ErrUnconfirmed when the outcome is unknown, upon which the
	// emulation sends it again with Retry set, unless it wraps
	// errors.ErrUnsupported, driver.ErrRejected or driver.ErrPermission as well:
	// another try would not tell; any other error when the
	// message is certainly not stored and trying again is useless. Parcels of
	// one queue are stored in their order. A parcel must not be looked at after
	// its Done: it is used again.
	//
	// With wait the caller waits for the outcomes next, so Append may block
	// until ctx ends; without, it must not wait for a round trip. Ctx's end
	// resolves nothing. The slice must not be kept, the parcels may.
	Append(ctx context.Context, parcels []*Parcel, wait bool)

	// A queue with limits keeps them whenever a message is stored or given
	// back: with DropHead, what is at its head leaves it, for Sweep, and is gone
	// from it before Done(nil), or before anything that was given back with it
	// is delivered. RejectPublish refuses what would make the ready messages
	// more than MaxLength or their bodies more than MaxBytes; what is given back
	// is never refused.

	// Consume starts to put the queue's messages into the inbox; ErrGone
	// where the storage does not exist. Of a queue with priorities those of
	// the highest Level go first. Of one with a single active consumer only
	// the first that came gets any, until it ends.
	Consume(ctx context.Context, q *Queue, in *Inbox) (Consumer, error)

	// Now is the time by the clock that Delivery.Stored goes by, the broker's,
	// as well as this process knows it. It does no I/O.
	Now() time.Time
	// Sweep takes messages that the queue gives up by itself, at most max:
	// those at its head, where a consumer would get the next one, whose time
	// is over (Queue.Over), and those that its limits pushed out. Where the
	// queue has no dead-letter exchange it removes them; else it returns them,
	// each with its Reason, and keeps them from everybody for a lease, after
	// which another Sweep may return them again. It is no consumer.
	Sweep(ctx context.Context, q *Queue, max int) (Swept, error)
	// Drop removes what Sweep returned; what is gone already is no error. Where the
	// storage does not exist it may return ErrGone.
	Drop(ctx context.Context, q *Queue, ds []*Delivery) error

	// Usage says how a queue is used, by the broker's clock; ErrGone where the
	// storage does not exist.
	Usage(ctx context.Context, q *Queue) (Usage, error)
	// Touch begins anew the time for which a queue is unused.
	Touch(ctx context.Context, q *Queue) error
	// Lead makes the client the one that looks after the namespace's queues
	// for the term, and reports whether it is; it renews a term that is the
	// client's already. There is at most one but for clocks that run apart,
	// which does no harm. A client that closes ends its term with a term of 0.
	Lead(ctx context.Context, client string, term time.Duration) (bool, error)

	Inspect(ctx context.Context, q *Queue) (driver.QueueInfo, error)
	Purge(ctx context.Context, q *Queue) (int, error)

	Health(ctx context.Context) error
	Native() any
	// Close ends everything and leaves no goroutine. Parcels that are not
	// resolved are, with driver.ErrUnconfirmed.
	Close(ctx context.Context) error
}

// ErrGone says that the storage of a queue's incarnation does not exist.
var ErrGone = errors.New("the queue's storage is gone")

// ErrStale says that a version is no longer the current one.
var ErrStale = errors.New("stale topology version")

// TopologyStore keeps the topology of a namespace and the leases of the
// clients that route by it. Its reads must be at least as new as every write
// whose success was reported before the read began, to whichever process.
type TopologyStore interface {
	// LoadTopology returns what changed after the version since: each element
	// that was set or removed, its last state only, in any order; or all that
	// stands now, with Full set, when since is the zero version or too old or
	// of another epoch. A namespace never written to has a version too.
	LoadTopology(ctx context.Context, since Version) (Changes, error)
	// ApplyTopology sets and removes elements in one atomic step, provided
	// that at is the current version, and returns the next one; ErrStale
	// otherwise. At most MaxElements elements and MaxElementBytes bytes a
	// call. An error that wraps driver.ErrUnconfirmed means that it may have
	// happened.
	ApplyTopology(ctx context.Context, at Version, elements []Element) (Version, error)
	// WatchTopology calls changed soon after any process changed the topology,
	// and with back set after a lost connection came back, until Close. The
	// first is a hint: calls may be missed or repeated. changed does not block.
	WatchTopology(ctx context.Context, changed func(back bool)) error

	// RenewLease records that the client routes by version v, in one atomic
	// step with the check that v is the current version: ErrStale, and no
	// change, where it is not. The record outlives ten leases of LeaseTime.
	RenewLease(ctx context.Context, client string, v Version) error
	// Leases returns all records. Restarted is how long ago the broker may
	// have forgotten records or versions that it had confirmed (the time since
	// its start or failover); negative where it cannot forget.
	Leases(ctx context.Context) (leases []Lease, restarted time.Duration, err error)
	// EndLease removes the client's record.
	EndLease(ctx context.Context, client string) error
}

// LeaseTime is how long a client routes by a topology version without
// renewing, counted from when it sent the renewal.
const LeaseTime = 3 * time.Second

// The bounds of one ApplyTopology call.
const (
	MaxElements     = 500       // changed at once
	MaxElementBytes = 256 << 10 // of their data together
)

// Version names a state of the topology. N counts; Epoch is random, fresh for
// every beginning, since a failover or a flush can repeat a count.
type Version struct {
	Epoch string
	N     uint64
}

// Changes are the differences between two versions, or a whole topology.
type Changes struct {
	Version  Version
	Full     bool
	Elements []Element
}

// Element is one exchange, queue or binding, encoded; Data nil: removed. Names
// are ASCII letters, digits and dots, at most 64 bytes; Data is JSON.
type Element struct {
	Name string
	Data []byte
}

// Lease is one client's record.
type Lease struct {
	Client  string
	Version Version
}

// Queue is a queue as declared, with the name of its storage.
type Queue struct {
	routing.Queue
	// Incarnation names the storage: letters and digits, fresh for every
	// declaration, so that a late retry cannot land in a queue made anew.
	Incarnation string
	// Handle is the store's own, set by Attach.
	Handle any

	owner    string // the client that an exclusive queue belongs to
	expiring bool   // messages with a TTL of their own come here
}

// Over is when the time of a message is over that the queue stored at stored;
// the zero time where it has no end. That of a delayed message begins when the
// delay is over.
func (q *Queue) Over(m *driver.Message, stored time.Time) time.Time {
	ttl := q.TTL
	if m.TTL > 0 && (ttl == 0 || m.TTL < ttl) {
		ttl = m.TTL
	}
	if ttl == 0 || q.Name == delayedQueue {
		return time.Time{}
	}
	return stored.Add(ttl)
}

// Swept is what Sweep took.
type Swept struct {
	Dead []*Delivery
	// More says that there may be more to take at once.
	More bool
	// Next is when the time of the message that is at the head now is over;
	// the zero time where it has no end or nothing is there.
	Next time.Time
	// Empty says that nothing is ready.
	Empty bool
}

// Usage is how a queue is used.
type Usage struct {
	Consumers int
	// Used says that the queue has had a consumer.
	Used bool
	// Idle is for how long it has had no consumer and was not touched.
	Idle time.Duration
}

// DeleteOptions are conditions on a deletion.
type DeleteOptions struct {
	driver.DeleteOptions
	// Idle: it has been idle for so long.
	Idle time.Duration
}

// Consumer is one consumer of one queue.
type Consumer interface {
	// Settle acknowledges (driver.Ack), or gives back for another attempt not
	// before the delay (driver.Nack). It may return before the broker has
	// seen it but sends it within 5 ms. Never driver.Reject: the emulation
	// moves the message, then acknowledges it. What is given back makes room in
	// the inbox when Settle has returned, and Inbox.More tells of it then.
	Settle(ctx context.Context, d *Delivery, o driver.Outcome, delay time.Duration) error
	// Extend makes the holds last for another lease, and returns those that
	// are already lost. It is called every third of Features.Lease with all
	// that the inbox holds, and not at all where that is 0.
	Extend(ctx context.Context, ds []*Delivery) (lost []*Delivery, err error)
	// Close stops delivering, flushes settlements and gives back at once what
	// the inbox still holds: Inbox.Drain says which were merely prefetched,
	// whose attempts do not count. It leaves no goroutine.
	Close(ctx context.Context) error
}

// Drainer is a Consumer that can stop delivering while it still settles and
// extends what was handed out. Optional.
type Drainer interface {
	// Drain stops delivering and gives back at once what Inbox.Prefetched
	// returns, whose attempts do not count. The inbox has ended.
	Drain(ctx context.Context) error
}
