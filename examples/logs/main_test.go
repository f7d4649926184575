package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

const want = `alerts (every error)
  auth.error: the directory is not reachable
  billing.error: invoice 18 has no address
auth (all of auth)
  auth.info: ada signed in
  auth.info: bob signed in
  auth.error: the directory is not reachable
audit (audit, in the EU)
  auth.info: ada signed in
  billing.info: invoice 17 is paid
review (paid, or slow)
  billing.info: invoice 17 is paid
  web.info: GET /report
ok: 3 services, 4 sinks, 9 lines delivered
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
