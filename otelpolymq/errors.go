package otelpolymq

import (
	"context"
	"errors"
	"reflect"

	"github.com/polymq/polymq"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
)

// known are in the order of asking: what ended with a ctx and is unknown for
// that is unconfirmed.
var known = []struct {
	err  error
	name string
}{
	{polymq.ErrUnconfirmed, "unconfirmed"},
	{polymq.ErrNoReply, "no_reply"},
	{polymq.ErrUnroutable, "unroutable"},
	{polymq.ErrRejected, "rejected"},
	{polymq.ErrTooLarge, "too_large"},
	{polymq.ErrUndecodable, "undecodable"},
	{polymq.ErrNotFound, "not_found"},
	{polymq.ErrConflict, "conflict"},
	{polymq.ErrInUse, "in_use"},
	{polymq.ErrSettled, "settled"},
	{polymq.ErrLost, "lost"},
	{polymq.ErrPermission, "permission"},
	{polymq.ErrInvalid, "invalid"},
	{polymq.ErrClosed, "closed"},
	{errors.ErrUnsupported, "unsupported"},
	{context.DeadlineExceeded, "timeout"},
	{context.Canceled, "canceled"},
}

const other = "_OTHER"

// errorType is the error's low-cardinality name; "" for none.
func errorType(err error) string {
	if err == nil {
		return ""
	}
	if pe, ok := errors.AsType[*polymq.PublishError](err); ok {
		name := errorType(pe.Failures[0].Err)
		for _, f := range pe.Failures[1:] {
			if errorType(f.Err) != name {
				return other
			}
		}
		return name
	}
	for _, k := range known {
		if errors.Is(err, k.err) {
			return k.name
		}
	}
	return semconv.ErrorType(unwrapped(err)).Value.AsString()
}

var own = reflect.TypeFor[polymq.Error]().PkgPath()

// unwrapped takes off the marks that polymq's Permanent and RetryAfter put
// around a handler's error, which say nothing of what it is.
func unwrapped(err error) error {
	for {
		t := reflect.TypeOf(err)
		if t.Kind() != reflect.Pointer || t.Elem().PkgPath() != own {
			return err
		}
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
