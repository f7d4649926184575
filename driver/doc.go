// Package driver is what a backend implements. Applications use package
// polymq, which holds all that backends have in common.
//
// A broker that has exchanges of its own implements [Driver] and [Conn]. One
// that only has queues, streams or lists implements the far smaller store of
// package driver/emulate, which makes a Conn of it. Either way the promises in
// the documentation of package polymq are the task, and package conformance is
// the test: a driver is done when it passes.
//
// # What a driver can rely on
//
// Package polymq has checked and normalised before it calls:
//
//   - Names and keys are legal, a [routing.Topology] is valid, counts are
//     positive, delays are not negative.
//   - A message's header holds only string, []byte, bool, int64, float64,
//     time.Time (UTC, whole seconds), nil, map[string]any and []any of these;
//     keys are 1 to 255 bytes. CC and BCC are lists of legal keys.
//   - Message.Time is zero, or UTC in whole seconds.
//   - Properties of type string are at most 255 bytes, of any value: what the
//     broker's protocol cannot hold (line breaks, bytes that are no UTF-8), the
//     driver escapes.
//   - The body is at most Features.MaxMessageBytes. TTL and Delay are 0 unless
//     Features has them.
//   - Publishing.ID is set.
//   - A delivery is settled once, and not concurrently.
//   - Nothing is called on a publisher or subscriber before it was returned.
//     Anything may be called during and after Close.
//
// # What a driver must do
//
// Opening:
//
//   - Register a Driver in an init function, one for each scheme, with
//     polymq.Register.
//   - Take every URL option with the getters of [URL] and end with URL.Rest.
//   - Refuse a broker that cannot hold the promises, naming the version that
//     can.
//   - Put no password into an error or a log line, also not by wrapping an
//     error of the client library that quotes the URL.
//   - Try each host once and return; look after the connection from then on.
//
// Features:
//
//   - Have an entry for every one of [AllFeatures]. What is declared must work;
//     what is [Refused] must answer with errors.ErrUnsupported.
//   - Features does not change in the life of a Conn.
//
// Errors:
//
//   - Wrap one of this package's sentinels and the broker's own error:
//     fmt.Errorf("%w: %w", driver.ErrNotFound, err).
//   - Never panic on what comes from a user or from the broker. A message that
//     cannot be understood is no reason to stop, to lose it or to spin.
//
// Contexts:
//
//   - Return soon after ctx ends, also while connecting and in Close.
//   - While the connection is lost, wait for it or for ctx.
//   - The ctx of Open, Publisher and Subscriber bounds these calls, not the
//     life of what they return.
//
// Publishing:
//
//   - Resolve every [Publishing] once. It belongs to its owner again from that
//     moment and may carry another message the next: forget it before calling
//     Resolve, and never touch it afterwards.
//   - Where two goroutines could both resolve one (a confirm and a lost
//     connection), decide between them first; that Resolve reports false is
//     for the caller that gave up, not for this.
//   - Call Resolve without a lock that Publish takes: the owner may let the
//     next publish go.
//   - Outcomes that are unknown are sent again under the same ID, never
//     reported as refused.
//   - Keep the order of what one goroutine publishes, across batches.
//   - A publisher's window is kept by package polymq, so a driver need not
//     bound what it is given.
//
// Consuming:
//
//   - Hold at most Prefetch messages, those handed out and not settled
//     included.
//   - Count as handed out only what Receive returned.
//   - Deliver a new Message with each delivery: the application may keep and
//     change it. The header is nil when there are no headers.
//   - Implement [Drainer] if the broker lets a consumer stop while it still
//     settles.
//   - Settle only the message itself: a hold that was lost is ErrLost, never
//     another message's settlement.
//
// Ending:
//
//   - Close is idempotent, returns when ctx ends, and leaves no goroutine, no
//     timer and no connection behind.
//   - The package documentation says how many goroutines a connection, a
//     publisher and a subscriber have. The number does not depend on the number
//     of messages.
//
// # Wrapping a driver
//
// A driver that wraps another hands on what that one may implement beside: of a
// Conn [Checker], [Viewer] and [Restored], of a Subscriber [Drainer]. It may put
// another message into a Publishing before it passes it on. It leaves deliveries
// as they are and hands out copies, since the inner driver may store what it has
// delivered again, as a dead letter.
package driver
