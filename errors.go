package polymq

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// What errors.Is finds in the errors of this package, beside
// errors.ErrUnsupported for what a backend cannot do and the errors of
// contexts. The client library's own error is found with errors.As.
var (
	ErrClosed      = driver.ErrClosed      // the connection, publisher or subscriber is closed
	ErrInvalid     = routing.ErrInvalid    // a name, key, header, option or argument is not legal
	ErrNotFound    = driver.ErrNotFound    // no such exchange or queue
	ErrConflict    = driver.ErrConflict    // declared differently
	ErrInUse       = driver.ErrInUse       // IfUnused or IfEmpty did not hold
	ErrUnroutable  = driver.ErrUnroutable  // no queue takes the message
	ErrRejected    = driver.ErrRejected    // at least one queue refused the message; others may have it
	ErrTooLarge    = driver.ErrTooLarge    // larger than the backend takes
	ErrUnconfirmed = driver.ErrUnconfirmed // ctx or the connection ended first: the message may or may not be stored
	ErrSettled     = driver.ErrSettled     // the delivery was settled before
	ErrLost        = driver.ErrLost        // the hold on the delivery was lost: the message comes again
	ErrPermission  = driver.ErrPermission  // the broker does not allow it
)

// ErrNoReply is the error of a call whose request is confirmed and whose reply has
// not come, nor may any more: the request may or may not have been handled.
var ErrNoReply = errors.New("the request is stored, but no reply came: it may or may not have been handled")

// Error is what the functions of this package return, but for Publish, in the
// manner of fs.PathError.
type Error struct {
	Op     string // "open", "declare", "receive", "ack", ...
	Scheme string // of the URL: "amqp", "nats", ...; "" with NewConn
	Name   string // the exchange or queue, or the URL without its password; "" where there is none
	Err    error  // why
}

func (e *Error) Error() string {
	return where(e.Scheme, e.Op, e.Name) + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

func where(scheme, op, name string) string {
	if scheme == "" {
		scheme = "polymq"
	}
	s := scheme + ": " + op
	if name != "" {
		s += " " + strconv.Quote(name)
	}
	return s
}

// wrap gives err its place, once.
func wrap(op, scheme, name string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(*Error); ok {
		return err
	}
	return &Error{Op: op, Scheme: scheme, Name: name, Err: err}
}

// Failure is a message that Publish could not see confirmed.
type Failure struct {
	Index int    // of the message among Publish's arguments
	ID    string // the message's ID, the generated one where it had none
	Err   error  // why; wraps one of the sentinels
}

// PublishError is what Publish returns: one failure for each message that is
// not confirmed, in the order of the arguments. A message without a failure is
// confirmed. errors.Is and errors.As look into all of them.
type PublishError struct {
	Scheme   string    // of the URL; "" with NewConn
	Exchange string    // that was published to; "" is the default exchange
	Failures []Failure // never empty
}

func (e *PublishError) Error() string {
	var b strings.Builder
	b.WriteString(where(e.Scheme, "publish", e.Exchange))
	for i, f := range e.Failures {
		if i == 3 {
			fmt.Fprintf(&b, "; and %d more", len(e.Failures)-i)
			break
		}
		if i > 0 {
			b.WriteByte(';')
		} else {
			b.WriteByte(':')
		}
		fmt.Fprintf(&b, " message %d", f.Index)
		if f.ID != "" {
			fmt.Fprintf(&b, " (%s)", f.ID)
		}
		fmt.Fprintf(&b, ": %v", f.Err)
	}
	return b.String()
}

// Unwrap returns the failures' errors.
func (e *PublishError) Unwrap() []error {
	errs := make([]error, len(e.Failures))
	for i, f := range e.Failures {
		errs[i] = f.Err
	}
	return errs
}

// unconfirmed is the outcome of a publish that its ctx ended.
func unconfirmed(ctx context.Context) error {
	return fmt.Errorf("%w: %w", ErrUnconfirmed, ended(ctx))
}

// ended is the error of ctx, which has ended, with its cause where it has one of
// its own.
func ended(ctx context.Context) error {
	if cause := context.Cause(ctx); cause != ctx.Err() {
		return fmt.Errorf("%w: %w", ctx.Err(), cause)
	}
	return ctx.Err()
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

func unsupported(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errors.ErrUnsupported, fmt.Errorf(format, args...))
}

// first is the first of errs that is one.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
