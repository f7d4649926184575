package middleware

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/polymq/polymq"
)

// PanicError is the error that Recover makes of a panic.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // of the goroutine, as it panicked
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap is the value of the panic if that is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Recover turns a panic of the handler into a *PanicError, so that the
// delivery is nacked by the backoff like any failure, and exhausts its
// attempts if it panics each time. Without Recover a panic ends the process.
//
// What stands before Recover in the list sees the error; a panic of what
// stands before it is not recovered, so Recover usually comes right after Log.
func Recover() polymq.Middleware {
	return func(next polymq.Handler) polymq.Handler {
		return func(ctx context.Context, d *polymq.Delivery) (err error) {
			defer func() {
				if v := recover(); v != nil {
					err = &PanicError{Value: v, Stack: debug.Stack()}
				}
			}()
			return next(ctx, d)
		}
	}
}
