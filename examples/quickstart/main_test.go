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
archive    all        everything                          350       status.installed.amd64.libc-bin
installed  by-key     status.installed.#                  48        status.installed.amd64.libc-bin
brokers    by-key     #.rabbitmq-server, #.redis-server   14        status.installed.all.rabbitmq-server
begun      by-key     install.*.*, upgrade.#              45        install.all.rabbitmq-server
portable   by-header  arch=all and action=configure       11        configure.all.rabbitmq-server
watched    by-header  action=upgrade or package=libc-bin  24        status.installed.amd64.libc-bin
ok: 350 published, 492 delivered
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
