package polymq

import (
	"time"

	"github.com/polymq/polymq/driver"
)

// Message is plain data: what is published and what a Delivery carries. Its
// properties are AMQP's, so that any AMQP message passes through any backend
// without loss. Publishing never changes a message.
//
// Properties of type string are at most 255 bytes.
type Message struct {
	// ID identifies the message; a second publish with the same ID within
	// Features.DedupWindow leaves no second copy. Default: a random one.
	ID string
	// Key is the routing key, 0 to 255 bytes of UTF-8 without control
	// characters. To the default exchange it is the queue's name.
	Key string
	// Header holds the application's headers. The entries CC and BCC, each a
	// []any of strings, are further routing keys; BCC is removed on the way.
	Header Header
	// Body is the payload, as it is. At most Features.MaxMessageBytes.
	Body []byte
	// ContentType is the body's media type, such as "application/json".
	ContentType string
	// ContentEncoding is the body's encoding, such as "gzip". It is carried,
	// not acted upon.
	ContentEncoding string
	// CorrelationID names what this message answers or belongs to.
	CorrelationID string
	// ReplyTo names where an answer is to go, usually a queue.
	ReplyTo string
	// Type names the kind of message to the application.
	Type string
	// AppID names the application that published.
	AppID string
	// UserID names the user that published. RabbitMQ refuses one that is not
	// the connection's.
	UserID string
	// Time is when the message came about, to the second, delivered in UTC.
	// Default: none.
	Time time.Time
	// Priority is the message's priority in a queue with MaxPriority, which
	// counts higher ones as that.
	Priority uint8
	// TTL is how long the message waits in a queue; see routing.Queue.TTL. It
	// is rounded up to milliseconds, and taken away when the message is
	// dead-lettered. Default: 0, for ever. Not negative, at most
	// routing.MaxTTL.
	TTL time.Duration
	// Delay is how long after its publishing the message is routed, rounded up
	// to milliseconds, and as exactly as Features.DelayPrecision says. Publish
	// returns when the broker keeps the message. It is routed by the bindings
	// that stand when it is due; what no queue takes then goes to the
	// exchange's alternate, else to the durable queue UnroutableQueue. While a
	// queue refuses it, it is tried again. On delivery Delay is 0. Default: 0,
	// at once. Not negative.
	Delay time.Duration
	// At is when the message is routed, by this process's clock: a Delay until
	// then, none if that is past. Set one of the two. Default: at once.
	At time.Time
	// Transient messages may be lost when the broker restarts. Default: durable.
	Transient bool
}

// UnroutableQueue takes delayed messages that no queue took when they were due.
// It is made when it is needed.
const UnroutableQueue = driver.UnroutableQueue

// Header holds a message's headers. See driver.Header, which it is, for what
// it may hold.
type Header = driver.Header

// The two structs have the same fields, or this does not compile; it is what
// lets a message pass to the driver and back without being copied.
var _ = (*driver.Message)((*Message)(nil))
