package routing

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
}

// A Queue keeps messages until they are settled.
type Queue struct {
	// Name is 1 to 255 bytes of UTF-8 without control characters, not
	// beginning with "amq.".
	Name string
	// Type is the broker's kind of queue. RabbitMQ: "quorum" or "classic";
	// default quorum when durable, else classic. Elsewhere it must be empty.
	Type string
	// Transient queues may be gone, with their messages, after a broker
	// restart. Default: durable.
	Transient bool
	// DeadLetterExchange takes the messages that this queue gives up:
	// rejected, and exhausted ones. DefaultExchange means the default exchange.
	// While no queue takes one there, or the exchange is missing, it is kept
	// until one does, and subscribers may take further messages meanwhile;
	// where RabbitMQ keeps it itself, it looks for a way every three minutes.
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
	// Args is for what one broker alone has. An argument that the backend
	// does not know is refused at Declare.
	Args map[string]any
}

// A Binding leads from an exchange to a queue or to another exchange. Its
// identity is all of its fields: the same key with other arguments is another
// binding.
type Binding struct {
	// Exchange is the source.
	Exchange string
	// Queue or ToExchange is the destination; exactly one is set.
	Queue      string
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
	Exchanges []Exchange
	Queues    []Queue
	Bindings  []Binding
}
