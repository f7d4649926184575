package redis

import (
	"context"
	"errors"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestEndedBy: a connection that failed by ctx's deadline says so, also where
// its own timer went off first.
func TestEndedBy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := endedBy(ctx, os.ErrDeadlineExceeded); errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second early: %v", err)
		}
		time.Sleep(time.Second - time.Millisecond)
		if err := endedBy(ctx, os.ErrDeadlineExceeded); ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("at the deadline: %v", err)
		}
		cancel()
		if err := endedBy(ctx, os.ErrDeadlineExceeded); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
