package polymq

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver"
)

// Observer is asked once for each connection, by Open before it connects or by
// NewConn, what to call as things happen. nil means nothing. *Hooks is an
// Observer itself; the module otelpolymq has one for OpenTelemetry.
type Observer interface {
	Observe(ConnInfo) *Hooks
}

// ConnInfo is what an Observer is told of a connection.
type ConnInfo struct {
	// Scheme is the URL's, "" with NewConn.
	Scheme string
	// Hosts are the URL's, each host, host:port or "", without user and
	// password; nil with NewConn.
	Hosts []string
	// Backend is Features.Backend with NewConn; Open does not know it yet, and
	// leaves it empty.
	Backend string
}

// Hooks are called as things happen on a connection. Those that are nil are
// not called; a connection without observers does and allocates nothing for
// them.
//
// A hook is called on the goroutine of what it tells of, which waits for it:
// it must return soon. It must be safe for concurrent use, must not settle the
// delivery it is told of, and must neither change the messages and deliveries,
// but as PublishBegin says, nor keep the slices of an event or the messages of a
// PublishEvent, which are copies of the application's. A panic of a hook
// is not recovered. Of several observers the first is called first where
// something begins, and last otherwise. What Redrive moves is not told.
type Hooks struct {
	// PublishBegin is called by Publish and PublishAsync, behind their
	// middleware, before the messages are checked and sent. What it returns
	// takes the place of ctx and must be derived from it. It may put other
	// messages into e.Messages: copies, for instance, whose headers are
	// copies with more in them.
	PublishBegin func(ctx context.Context, e PublishEvent) context.Context
	// PublishEnd is called when all outcomes are known, before Publish
	// returns or the receipt is done, with the ctx of PublishBegin. For
	// PublishAsync it must not block: it may be on the goroutine that brings
	// all outcomes.
	PublishEnd func(ctx context.Context, e PublishEvent)
	// Receive is called when deliveries are about to be handed to the
	// application, by Receive, ReceiveBatch and Deliveries or to a handler of
	// Run, and when receiving failed for another reason than the end of ctx.
	Receive func(ctx context.Context, e ReceiveEvent)
	// ProcessBegin is called before a handler of Run and its middleware. What
	// it returns takes the place of the handler's ctx, from which it must be
	// derived; the settlement that follows has its values, too.
	ProcessBegin func(ctx context.Context, e ProcessEvent) context.Context
	// ProcessEnd is called when the handler has returned and before Run
	// settles, with the ctx of ProcessBegin.
	ProcessEnd func(ctx context.Context, e ProcessEvent)
	// Settle is called after each settlement that was tried, by the
	// application or by Run, with the settlement's ctx. One that the call
	// refused without asking the broker (ErrSettled, an ended ctx) is not
	// told.
	Settle func(ctx context.Context, e SettleEvent)
	// Release is called when a subscriber closes that had handed out
	// deliveries which nobody has settled.
	Release func(e ReleaseEvent)
	// State is called as Options.OnState is.
	State func(state State, err error)
}

// Observe makes Hooks an Observer: every connection gets the same.
func (h *Hooks) Observe(ConnInfo) *Hooks { return h }

// PublishEvent is one call of Publish or PublishAsync.
type PublishEvent struct {
	// Exchange is the publisher's; "" is the default exchange.
	Exchange string
	// Async says that it is a PublishAsync, which has one message.
	Async bool
	// Begun is when the call reached PublishBegin.
	Begun time.Time
	// Messages are those of the call, in order.
	Messages []PublishedMessage
	// Err is what the call returns, or the receipt's error; nil in
	// PublishBegin.
	Err error
}

// PublishedMessage is a message of a PublishEvent.
type PublishedMessage struct {
	Message *Message // a copy of the application's; nil where that is
	ID      string   // its own or the generated one; "" in PublishBegin
	Err     error    // why it is not confirmed; nil in PublishBegin
}

// ReceiveEvent is what came of waiting for deliveries.
type ReceiveEvent struct {
	// Queue is the subscriber's.
	Queue string
	// Handler says that Run received, for its handler.
	Handler bool
	// Batch says that it was a ReceiveBatch.
	Batch bool
	// Begun is when the waiting began.
	Begun time.Time
	// Deliveries are handed out, and unsettled from now on.
	Deliveries []*Delivery
	// Err is why there are none.
	Err error
}

// ProcessEvent is one call of Run's handler.
type ProcessEvent struct {
	// Delivery is what the handler works on.
	Delivery *Delivery
	// Begun is when Run called the handler.
	Begun time.Time
	// Err is what the handler returned; nil in ProcessBegin. Handler says
	// what follows from it.
	Err error
}

// SettleEvent is one settlement that was tried.
type SettleEvent struct {
	// Delivery is what was to be settled.
	Delivery *Delivery
	// Outcome is how.
	Outcome Outcome
	// Delay is Nack's.
	Delay time.Duration
	// Begun is when the settlement began.
	Begun time.Time
	// Err is what the settlement returns: nil, ErrLost and ErrClosed are
	// final, after others it can be tried again.
	Err error
	// Done says that the delivery is in flight no longer. Of each delivery it
	// is true once, unless a ReleaseEvent counts it.
	Done bool
}

// ReleaseEvent tells of deliveries that were given back unsettled.
type ReleaseEvent struct {
	Queue string // the subscriber's
	Count int    // of its deliveries
}

// Outcome is how a delivery is settled.
type Outcome = driver.Outcome

// The outcomes.
const (
	OutcomeAck    = driver.Ack    // the work is done
	OutcomeNack   = driver.Nack   // back to its queue
	OutcomeReject = driver.Reject // given up: a dead letter, or dropped
)
