package oracle

import (
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// A Script is operations to be done one after another, and what they need to
// know of their surroundings.
type Script struct {
	// Classic makes every queue a classic one on RabbitMQ; else its type is what
	// polymq chooses.
	Classic bool
	// Driver says that the amqp driver is the reference, since RabbitMQ itself
	// does not have what the script is about.
	Driver bool
	Ops    []Op
}

// An Op is one operation. Field On is the connection that does it, of two;
// By is a subscriber, by the name that Subscribe gave it.
type Op interface {
	// name is what the run counts it as.
	name() string
	// do does it and says what came of it. What want says, the reference's
	// record, is nil in the reference run.
	do(p *player, want *Step) Step
}

// Declare declares a topology.
type Declare struct {
	On       int
	Topology routing.Topology
}

// Bind adds a binding.
type Bind struct {
	On      int
	Binding routing.Binding
}

// Unbind removes a binding.
type Unbind struct {
	On      int
	Binding routing.Binding
}

// DeleteQueue deletes a queue.
type DeleteQueue struct {
	On       int
	Queue    string
	IfUnused bool
	IfEmpty  bool
}

// DeleteExchange deletes an exchange.
type DeleteExchange struct {
	On       int
	Exchange string
	IfUnused bool
}

// Publish publishes messages one after another, in one call.
type Publish struct {
	On       int
	Exchange string
	Drop     bool // DropUnroutable
	AsUser   bool // with the UserID of the RabbitMQ connection
	Messages []polymq.Message
}

// Purge purges a queue.
type Purge struct {
	On    int
	Queue string
}

// Inspect asks for a queue's numbers.
type Inspect struct {
	On    int
	Queue string
}

// Subscribe opens a subscriber.
type Subscribe struct {
	On       int
	By       string
	Queue    string
	Prefetch int
}

// Receive takes what a subscriber has, at most Max where that is not 0.
type Receive struct {
	By  string
	Max int
}

// The ways to settle.
const (
	Ack    = "ack"
	Nack   = "nack"
	Reject = "reject"
)

// Settle settles the Nth of the messages that a subscriber was handed, or,
// where All is set, each of them in turn.
type Settle struct {
	By      string
	Nth     int
	All     bool
	Outcome string
	Delay   time.Duration
}

// Close closes a subscriber.
type Close struct{ By string }

// Disconnect closes a connection, which ends its subscribers and exclusive
// queues, and opens it again.
type Disconnect struct{ On int }

// Wait waits until what is short is over: times to live, delays. For is for
// longer ones.
type Wait struct{ For time.Duration }

// AwaitGone waits for as long as a queue may be unused.
type AwaitGone struct{ Queue string }

func (Declare) name() string        { return "declare" }
func (Bind) name() string           { return "bind" }
func (Unbind) name() string         { return "unbind" }
func (DeleteQueue) name() string    { return "delete queue" }
func (DeleteExchange) name() string { return "delete exchange" }
func (Publish) name() string        { return "publish" }
func (Purge) name() string          { return "purge" }
func (Inspect) name() string        { return "inspect" }
func (Subscribe) name() string      { return "subscribe" }
func (Receive) name() string        { return "receive" }
func (s Settle) name() string       { return s.Outcome }
func (Close) name() string          { return "close" }
func (Disconnect) name() string     { return "disconnect" }
func (Wait) name() string           { return "wait" }
func (AwaitGone) name() string      { return "await queue expiry" }
