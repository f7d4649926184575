package middleware_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

func TestRecover(t *testing.T) {
	for _, value := range []any{"boom", io.EOF} {
		h := polymq.Chain(func(context.Context, *polymq.Delivery) error { panic(value) }, middleware.Recover())
		err := h(t.Context(), delivery())
		var pe *middleware.PanicError
		if !errors.As(err, &pe) || pe.Value != value || !strings.Contains(string(pe.Stack), "TestRecover") {
			t.Fatalf("%v", err)
		}
		if value == io.EOF && !errors.Is(err, io.EOF) {
			t.Error("the panic's error is out of reach")
		}
		if polymq.IsPermanent(err) {
			t.Error("a panic is permanent")
		}
	}
	calls := 0
	h := polymq.Chain(script(&calls, io.EOF, nil), middleware.Recover())
	if err := h(t.Context(), delivery()); err != io.EOF {
		t.Error(err)
	}
	if err := h(t.Context(), delivery()); err != nil {
		t.Error(err)
	}
}
