package driver

import "time"

// Message is what travels: plain data. It has the fields of polymq.Message in
// the same order, so that one converts to the other without copying; that type
// documents them.
type Message struct {
	ID              string
	Key             string
	Header          Header
	Body            []byte
	ContentType     string
	ContentEncoding string
	CorrelationID   string
	ReplyTo         string
	Type            string
	AppID           string
	UserID          string
	Time            time.Time
	Priority        uint8
	TTL             time.Duration
	Delay           time.Duration
	At              time.Time // zero: the core has made a Delay of it
	Transient       bool
}

// UnroutableQueue takes delayed messages that no queue took when they were due.
const UnroutableQueue = "polymq.unroutable"

// Delivery is a message that a subscriber holds until it is settled. The
// driver allocates it and may embed it in a larger struct of its own, to which
// Tag leads back.
type Delivery struct {
	Message Message
	// Exchange is where the message was published.
	Exchange string
	// Queue is where it was delivered from.
	Queue string
	// Attempt is 1 plus the earlier deliveries that ended in Nack, in the end
	// of a lease or of a connection; 0 where the queue cannot count.
	Attempt int
	// Redelivered says that the message may have been delivered before.
	Redelivered bool
	// Tag is the driver's own handle.
	Tag any
}

// Outcome is how a delivery is settled.
type Outcome uint8

// The outcomes.
const (
	Ack    Outcome = iota + 1 // done
	Nack                      // again, to the same queue, not before the delay
	Reject                    // never again: dead-letter or drop
)

func (o Outcome) String() string {
	switch o {
	case Ack:
		return "ack"
	case Nack:
		return "nack"
	case Reject:
		return "reject"
	}
	return "unknown"
}
