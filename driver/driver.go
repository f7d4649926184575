package driver

import (
	"context"
	"log/slog"
	"time"

	"github.com/polymq/polymq/routing"
)

// Driver opens connections for the URL schemes it is registered for. It must
// be safe for concurrent use and keeps no state but what URLs name.
type Driver interface {
	// Open tries each host of the URL once and returns a connection that from
	// then on looks after itself. It must refuse options that it does not know
	// (URL.Rest) and brokers that are too old, and must end when ctx does.
	Open(ctx context.Context, u *URL, cfg Config) (Conn, error)
}

// Config is what Open hands down. No field is nil.
type Config struct {
	Logger *slog.Logger
	// OnState hears of every change of the connection's state, one at a time,
	// but not of Closed, and need not hear of the first Connected: these are for
	// the callers of Close and Open to tell. A driver must not hold a lock while
	// it calls it.
	OnState func(State, error)
}

// State is the state of a connection.
type State uint8

// The states.
const (
	Connected    State = iota + 1 // serving
	Disconnected                  // lost, and being made again
	Blocked                       // alive, but the broker takes no publishes for now
	Closed                        // for good
)

func (s State) String() string {
	switch s {
	case Connected:
		return "connected"
	case Disconnected:
		return "disconnected"
	case Blocked:
		return "blocked"
	case Closed:
		return "closed"
	}
	return "unknown"
}

// Conn is a connection to one namespace of one broker. All methods must be
// safe for concurrent use, must return soon after ctx ends, and must return
// ErrClosed after Close. A connection that is lost comes back by itself; calls
// made in the meantime wait for it until their ctx ends.
type Conn interface {
	Features() Features

	// Declare makes what is missing and changes nothing that is there: the
	// same again is nothing, something else is ErrConflict naming the field.
	// The topology is already validated. When it returns nil, every publish
	// that starts afterwards, from any process, is routed by it.
	Declare(ctx context.Context, t routing.Topology) error
	// Verify reports what of t is missing (ErrNotFound) or stands differently
	// (ErrConflict). It must change nothing.
	Verify(ctx context.Context, t routing.Topology) error
	// Bind adds bindings; a missing exchange or queue is ErrNotFound.
	Bind(ctx context.Context, bs []routing.Binding) error
	// Unbind removes bindings; what is not there is no error.
	Unbind(ctx context.Context, bs []routing.Binding) error
	// DeleteQueue removes a queue, its messages and its bindings; a missing
	// one is no error.
	DeleteQueue(ctx context.Context, name string, o DeleteOptions) error
	// DeleteExchange removes an exchange and its bindings; a missing one is no
	// error.
	DeleteExchange(ctx context.Context, name string, o DeleteOptions) error
	// Topology is what stands now, whoever declared it, without the amq.*
	// exchanges and the default exchange; sorted by name.
	Topology(ctx context.Context) (routing.Topology, error)
	Inspect(ctx context.Context, queue string) (QueueInfo, error)
	// Purge removes the ready messages and says how many there were.
	Purge(ctx context.Context, queue string) (int, error)

	Publisher(ctx context.Context, cfg PublisherConfig) (Publisher, error)
	// Subscriber starts to consume; a missing queue is ErrNotFound.
	Subscriber(ctx context.Context, cfg SubscriberConfig) (Subscriber, error)

	// Health is nil when the broker answers.
	Health(ctx context.Context) error
	// Native is the client library's own handle; nil where there is none.
	Native() any
	// Close ends the connection, also for the publishers and subscribers that
	// are still open: what they hold goes back to its queues, what they have
	// not seen confirmed is resolved with ErrUnconfirmed. It is idempotent and
	// leaves no goroutine.
	Close(ctx context.Context) error
}

// Checker is a Conn that can say what Declare would refuse whatever stands,
// without asking the broker: its error is the one of Declare. Optional: without
// it, a plan does not tell what the backend does not have.
type Checker interface {
	Check(t routing.Topology) error
}

// Viewer is a Conn whose Topology cannot show all arguments in the types that
// they were declared with. Seen is args as it shows them. Optional.
type Viewer interface {
	Seen(args map[string]any) map[string]any
}

// DeleteOptions are conditions on a deletion; where one does not hold the
// answer is ErrInUse.
type DeleteOptions struct {
	IfUnused bool // queue: no subscribers; exchange: no bindings lead from it
	IfEmpty  bool // queue: no ready messages
}

// QueueInfo is what Inspect sees.
type QueueInfo struct {
	Ready     int // messages that wait for a subscriber, delayed ones included
	Unsettled int // messages that subscribers hold
	Consumers int // subscribers
}

// PublisherConfig says what a publisher publishes to.
type PublisherConfig struct {
	Exchange string // "": the default exchange
	// Queue, if not empty, takes every message, whatever the bindings and the
	// messages' keys; they arrive there as published to Exchange, which need
	// not exist. A queue that is missing is ErrUnroutable.
	Queue string
	// DropUnroutable makes a message that no queue takes a success.
	DropUnroutable bool
}

// Publisher sends messages to one exchange. It is safe for concurrent use.
type Publisher interface {
	// Publish sends a batch in order and resolves every publishing in it
	// exactly once, now or later, on any goroutine:
	//   nil                    every queue it was routed to has it
	//   ErrUnroutable          no queue takes it (nil with DropUnroutable)
	//   ErrNotFound            the exchange does not exist
	//   ErrRejected            at least one queue refused it
	//   ErrTooLarge            larger than the backend takes
	//   ErrUnconfirmed         the connection was closed first
	// A publishing whose outcome is unknown because the connection was lost is
	// sent again with the same ID when the connection is back, until it is
	// resolved, by the driver or by a caller that has given up (check
	// Publishing.Resolved before each try).
	//
	// With wait the caller will wait for the outcomes next, so the driver may
	// use this goroutine to bring them about and block until ctx ends. Without
	// wait it must not wait for a round trip. In both cases ctx's end does not
	// resolve anything: that is the caller's.
	//
	// The batch slice must not be kept after Publish returns; the publishings
	// may.
	Publish(ctx context.Context, batch []*Publishing, wait bool)
	// Close releases the publisher and ends Publish calls that wait. The caller
	// has waited for the outcomes it cares about; those still pending are
	// resolved with ErrUnconfirmed, also when ctx has ended.
	Close(ctx context.Context) error
}

// SubscriberConfig says what a subscriber consumes.
type SubscriberConfig struct {
	Queue    string // that is consumed
	Prefetch int    // at most so many unsettled messages are held; at least 1
}

// Subscriber takes messages from one queue. It is safe for concurrent use.
type Subscriber interface {
	// Receive fills buf with what is there and waits for at least one
	// delivery. It returns ctx.Err() when ctx ends first, ErrClosed after
	// Close, ErrNotFound when the queue was deleted. No delivery is lost when
	// ctx ends. Only what Receive returned counts as handed out: the rest was
	// merely prefetched.
	Receive(ctx context.Context, buf []*Delivery) (int, error)
	// Settle ends a hold. The caller makes sure that each delivery is settled
	// once. It may return before the broker has seen it, but sends it within
	// 5 ms; ErrLost where the hold is already lost. Delay counts for Nack only.
	// An error other than ErrLost and ErrClosed means that the delivery is as
	// it was, and Settle may be called again.
	Settle(ctx context.Context, d *Delivery, o Outcome, delay time.Duration) error
	// Extend makes sure that the hold lasts for another lease: ErrLost if it
	// is lost.
	Extend(ctx context.Context, d *Delivery) error
	// Close gives back at once what is held, flushes settlements, and ends
	// waiting Receives with ErrClosed.
	Close(ctx context.Context) error
}

// Drainer is a Subscriber that can stop taking while what it has handed out is
// still being worked on. Optional: without it, a Run that is ending gives back
// what is prefetched only when its last handler has ended, and a subscriber
// cannot pause.
type Drainer interface {
	// Drain gives back at once what is prefetched and was not handed out, and
	// takes no more: waiting and later Receives return ErrClosed. What was
	// handed out stays held and can be settled and extended until Close. It is
	// idempotent.
	Drain(ctx context.Context) error
}
