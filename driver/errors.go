package driver

import "errors"

// Drivers wrap one of these together with the broker's own error,
// fmt.Errorf("%w: %w", driver.ErrNotFound, err), so that errors.Is finds the
// first and errors.As the second. errors.ErrUnsupported stands beside them for
// what a backend cannot do.
var (
	ErrClosed      = errors.New("closed")
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("declared differently")
	ErrUnroutable  = errors.New("no queue takes the message")
	ErrRejected    = errors.New("rejected by a queue")
	ErrUnconfirmed = errors.New("outcome unknown: the message may or may not have been stored")
	ErrSettled     = errors.New("already settled")
	ErrLost        = errors.New("the hold on the message was lost: it is delivered again")
	ErrPermission  = errors.New("permission denied")
	ErrTooLarge    = errors.New("message too large")
	ErrInUse       = errors.New("in use") // IfUnused or IfEmpty did not hold
)
