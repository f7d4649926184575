package middleware_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var work time.Duration
		var result error
		h := polymq.Chain(func(ctx context.Context, _ *polymq.Delivery) error {
			select {
			case <-ctx.Done():
				return errors.Join(io.EOF, ctx.Err())
			case <-time.After(work):
				return result
			}
		}, middleware.Timeout(time.Minute))

		work = time.Hour
		began := time.Now()
		err := h(t.Context(), delivery())
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it took %v", took)
		}
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, io.EOF) {
			t.Errorf("%v", err)
		}

		work = time.Second
		if err := h(t.Context(), delivery()); err != nil {
			t.Error(err)
		}
		result = io.ErrUnexpectedEOF
		if err := h(t.Context(), delivery()); err != io.ErrUnexpectedEOF {
			t.Error(err)
		}

		// The end of the caller's own ctx is not the handler's slowness.
		work = time.Hour
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err = h(ctx, delivery())
		if want := "EOF\ncontext deadline exceeded"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	})
}
