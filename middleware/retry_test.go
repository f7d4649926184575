package middleware_test

import (
	"context"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/middleware"
)

func TestRetry(t *testing.T) {
	permanent, later := polymq.Permanent(io.EOF), polymq.RetryAfter(time.Second, io.EOF)
	for name, c := range map[string]struct {
		errs  []error
		calls int
		took  time.Duration
		want  error
	}{
		"at once":     {[]error{nil}, 1, 0, nil},
		"third":       {[]error{io.EOF, io.EOF, nil}, 3, 3 * time.Second, nil},
		"never":       {[]error{io.EOF}, 4, 6 * time.Second, io.EOF},
		"permanent":   {[]error{io.EOF, permanent}, 2, time.Second, permanent},
		"retry after": {[]error{later}, 1, 0, later},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				h := polymq.Chain(script(&calls, c.errs...), middleware.Retry(4, func(attempt int) time.Duration { return time.Duration(attempt) * time.Second }))
				began := time.Now()
				err := h(t.Context(), delivery())
				if took := time.Since(began); err != c.want || calls != c.calls || took != c.took {
					t.Errorf("error %v, %d calls, %v", err, calls, took)
				}
			})
		})
	}
}

func TestRetryEndsWithCtx(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		h := polymq.Chain(script(&calls, io.EOF), middleware.Retry(100, func(int) time.Duration { return time.Hour }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := h(ctx, delivery()); err != io.EOF || calls != 1 || time.Since(began) != time.Second {
			t.Errorf("%v, %d calls, %v", err, calls, time.Since(began))
		}
	})
}

func TestRetryWithoutBackoff(t *testing.T) {
	calls := 0
	h := polymq.Chain(script(&calls, io.EOF), middleware.Retry(3, nil))
	if err := h(t.Context(), delivery()); err != io.EOF || calls != 3 {
		t.Errorf("%v, %d calls", err, calls)
	}
}
