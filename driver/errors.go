package driver

import "errors"

// Drivers wrap one of these together with the broker's own error,
// fmt.Errorf("%w: %w", driver.ErrNotFound, err), so that errors.Is finds the
// first and errors.As the second. errors.ErrUnsupported stands beside them for
// what a backend cannot do.
var (
	ErrClosed      = errors.New("closed")                                                       // the connection, publisher or subscriber is
	ErrNotFound    = errors.New("not found")                                                    // no such exchange or queue
	ErrConflict    = errors.New("declared differently")                                         // another declaration stands
	ErrUnroutable  = errors.New("no queue takes the message")                                   // as it is routed now
	ErrRejected    = errors.New("rejected by a queue")                                          // at least one; others may have it
	ErrUnconfirmed = errors.New("outcome unknown: the message may or may not have been stored") // the connection ended, or the caller gave up
	ErrSettled     = errors.New("already settled")                                              // the delivery was
	ErrLost        = errors.New("the hold on the message was lost: it is delivered again")      // nothing was settled
	ErrPermission  = errors.New("permission denied")                                            // the broker does not allow it
	ErrTooLarge    = errors.New("message too large")                                            // larger than the backend takes
	ErrInUse       = errors.New("in use")                                                       // IfUnused or IfEmpty did not hold
)
