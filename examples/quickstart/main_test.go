package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

const want = `QUEUE      EXCHANGE   TAKES                               MESSAGES  LAST
`

// The same program prints the same on every backend, and leaves nothing.
func TestSameOutput(t *testing.T) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			url := testbroker.URL(t, scheme)
			var out strings.Builder
			if err := run(ctx, url, &out); err != nil {
				t.Fatal(err)
			}
			if got := out.String(); got != want {
				t.Errorf("printed\n%s\nwant\n%s", got, want)
			}
		})
	}
}
