package polymq

import (
	"math/rand/v2"
	"time"
)

// Exponential is a backoff that begins at base, doubles with every attempt and
// ends at limit; each delay is drawn evenly from the upper half of its value,
// so that what failed together does not come again together.
func Exponential(base, limit time.Duration) func(attempt int) time.Duration {
	return func(attempt int) time.Duration {
		d := base
		for i := 1; i < attempt && d < limit; i++ {
			d += min(d, limit-d)
		}
		if d = min(d, limit); d <= 0 {
			return 0
		}
		return d - rand.N(d/2+1)
	}
}
