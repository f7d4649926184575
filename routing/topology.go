package routing

import "time"

// Kind names how an exchange routes. It is a string so that kinds can be
// added; a table that meets a kind it does not know fails the publish with
// errors.ErrUnsupported rather than misroute it.
type Kind string

// The kinds of AMQP 0-9-1.
const (
	Direct  Kind = "direct"  // the binding key equals the routing key
	Fanout  Kind = "fanout"  // every binding
	Topic   Kind = "topic"   // the binding key is a pattern: * is one word, # zero or more
	Headers Kind = "headers" // the binding's arguments are compared with the message's headers
)

// DefaultExchange stands for the default exchange, whose own name is empty,
// in fields where the empty string means "none" (Queue.DeadLetterExchange,
// Exchange.Alternate).
const DefaultExchange = "amq.default"

// An Exchange takes messages and routes them along its bindings.
type Exchange struct {
	// Name is 1 to 255 bytes of UTF-8 without control characters.
	// The prefix "amq." is reserved for the exchanges every broker has.
	Name string
	// Kind says how the exchange routes.
	Kind Kind
	// Transient exchanges may be gone after a broker restart. Default: durable.
	Transient bool
	// Alternate names the exchange that takes what this one's own bindings do
	// not match. Default: none.
	Alternate string
	// Args is for what one broker alone has. An argument that the backend does
	// not know, or that a queue has, is refused.
	Args map[string]any
}

// Overflow says what a queue does with messages beyond its limits.
type Overflow string

// The ways to overflow.
const (
	DropHead      Overflow = "drop-head"      // what is at the head makes room, dead-lettered or dropped
	RejectPublish Overflow = "reject-publish" // a publish to a full queue is ErrRejected
)

// A Queue keeps messages until they are settled.
type Queue struct {
	// Name is 1 to 255 bytes of UTF-8 without control characters, not
	// beginning with "amq.".
	Name string
	// Type is the broker's kind of queue. RabbitMQ: "quorum" or "classic";
	// default classic when Transient, Exclusive, AutoDelete or with MaxPriority,
	// which its quorum queues do not have; quorum with MaxAttempts or safe dead
	// letters, which its classic ones do not have, and with Overflow
	// RejectPublish, where a durable classic queue drops what subscribers held
	// beyond the limit when the broker restarts; of the rest classic with Expires
	// or MaxBytes, of which quorum queues have less; else quorum (DefaultType).
	// Elsewhere the two are one, which can do what either can; it is kept, and
	// another type refused.
	Type string
	// Transient queues may be gone, with their messages, after a broker
	// restart. Default: durable.
	Transient bool
	// DeadLetterExchange takes the messages that this queue gives up:
	// rejected, expired and exhausted ones, and those that its limits push out.
	// DefaultExchange means the default exchange.
	// While no queue takes one there, or the exchange is missing, it is kept
	// until one does, and subscribers may take further messages meanwhile;
	// where RabbitMQ keeps it itself, it looks for a way every three minutes.
	// What a limit pushed out is kept for a queue that refuses it, but dropped
	// where none is bound or the exchange is missing.
	// Default: none, such messages are dropped.
	DeadLetterExchange string
	// DeadLetterKey replaces the routing keys of a dead-lettered message.
	// Default: the message keeps its own.
	DeadLetterKey string
	// BestEffortDeadLetter accepts that a dead letter can be lost where the
	// broker gives no better (RabbitMQ, unless quorum with reject-publish), and
	// that one which no queue takes is dropped.
	BestEffortDeadLetter bool
	// MaxAttempts is how often a message may be delivered; after that many
	// attempts have ended without Ack or Reject, it is dead-lettered.
	// Default: 0, no limit.
	MaxAttempts int
	// TTL is how long a message waits in the queue at most; a message's own
	// TTL counts where it is shorter. What has waited longer is not delivered
	// any more: once it is at the head of the queue it is dead-lettered, or
	// dropped. Messages that subscribers hold do not expire; given back, they
	// have the time that they had. Whole milliseconds. Default: 0, for ever.
	TTL time.Duration
	// Expires is how long the queue stands unused, which is without a
	// subscriber and without being declared again, until it is deleted with
	// its messages, which are not dead-lettered. Whole milliseconds.
	// Default: 0, for ever.
	Expires time.Duration
	// MaxLength is how many messages wait in the queue at most. Messages that
	// subscribers hold do not count. Default: 0, no limit.
	MaxLength int
	// MaxBytes is how many bytes of message bodies wait in the queue at most,
	// counted as MaxLength is. Default: 0, no limit.
	MaxBytes int64
	// Overflow says what happens beyond MaxLength and MaxBytes. Default:
	// DropHead.
	Overflow Overflow
	// MaxPriority makes a priority queue: of the messages that wait, those of
	// the highest Message.Priority go first, in their order. Higher priorities
	// than this count as this. 1 to 9. Default: 0, priorities are ignored.
	MaxPriority int
	// SingleActiveConsumer gives the messages to one subscriber at a time: the
	// first that came, and when it ends or dies, the next.
	SingleActiveConsumer bool
	// Exclusive queues belong to the connection that declares them: no other
	// can consume, purge, bind, declare or delete them (ErrInUse), though
	// anybody can publish to them, and they end with it. When a lost connection
	// comes back they are made anew, empty, with the bindings that it had made.
	Exclusive bool
	// AutoDelete deletes the queue when its last subscriber has gone.
	AutoDelete bool
	// Args is for what one broker alone has and no field stands for. An
	// argument that the backend does not know is refused at Declare.
	Args map[string]any
}

// A Binding leads from an exchange to a queue or to another exchange. Its
// identity is all of its fields: the same key with other arguments is another
// binding.
type Binding struct {
	// Exchange is the source.
	Exchange string
	// Queue or ToExchange is the destination; exactly one is set.
	Queue string
	// ToExchange is the destination of a binding between exchanges.
	ToExchange string
	// Key is the binding key, 0 to 255 bytes of UTF-8 without control
	// characters. Fanout and headers exchanges ignore it.
	Key string
	// Args are the arguments of a headers exchange: "x-match" is all (the
	// default), any, all-with-x or any-with-x; every other entry is compared
	// with the message's header of that name. nil means that the header is
	// present, whatever its value. Other kinds ignore them.
	Args map[string]any
}

// A Topology is exchanges, queues and bindings as plain data.
type Topology struct {
	Exchanges []Exchange // those that are always there need not be among them
	Queues    []Queue    // in any order
	Bindings  []Binding  // whose ends may stand already
}
