package guides

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/testbroker"
)

// The hosts are tried in turn, whenever the connection is lost.
func connect(ctx context.Context, url string, log *slog.Logger) (*polymq.Conn, error) {
	return polymq.Open(ctx, url, &polymq.Options{
		Logger: log,
		OnState: func(state polymq.State, err error) {
			log.Info("broker", "state", state, "error", err) // for your readiness probe, too
		},
	})
}

// The first of two hosts is down.
func TestClusters(t *testing.T) {
	for _, scheme := range []string{"amqp", "nats"} {
		t.Run(scheme, func(t *testing.T) {
			url := testbroker.URL(t, scheme)
			at := strings.LastIndex(url, "@")
			if at < 0 {
				at = strings.Index(url, "//") + 1
			}
			conn, err := connect(within(t), url[:at+1]+"127.0.0.1:1,"+url[at+1:], slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			if err := conn.Health(t.Context()); err != nil {
				t.Error(err)
			}
			if err := conn.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
