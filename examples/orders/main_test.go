package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

const want = `A-1 paid in attempt 1
A-2 declined, given up at once
A-3 paid in attempt 3
A-4 given up after attempt 3: the bank does not answer
the bank is back
A-4 paid in attempt 1
A-2 needs a person: rejected in payments
ok: 4 orders, 3 shipped, 1 given up, 1 came back from the dead letters
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
