package middleware

import (
	"fmt"

	"github.com/polymq/polymq"
)

// PanicError is the error that Recover makes of a panic.
type PanicError struct {
	Value any    // what was passed to panic
	Stack []byte // of the goroutine, when it panicked
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap is the value of the panic if it is an error.
func (e *PanicError) Unwrap() error { err, _ := e.Value.(error); return err }

// Recover turns a panic of the handler into a *PanicError.
func Recover() polymq.Middleware { panic("unbuilt") }
