package middleware

import (
	"time"

	"github.com/polymq/polymq"
)

// Retry calls the handler up to attempts times, waiting backoff(n) after the
// n-th failure.
func Retry(attempts int, backoff func(attempt int) time.Duration) polymq.Middleware {
	panic("unbuilt")
}
