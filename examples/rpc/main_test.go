package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

const want = `3 squared: 9
12 squared: 144
a dozen squared: not a number
ok: 3 questions, 3 answers
`

func TestSameOutput(t *testing.T) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			var out strings.Builder
			if err := run(ctx, testbroker.URL(t, scheme), &out); err != nil {
				t.Fatalf("%v\nafter\n%s", err, &out)
			}
			if got := out.String(); got != want {
				t.Errorf("printed\n%s\nwant\n%s", got, want)
			}
		})
	}
}
