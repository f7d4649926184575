package nats_test

import (
	"context"
	"net/url"
	"strings"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/internal/testbroker"
)

// with adds an option to a URL.
func with(t testing.TB, raw, name, value string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
	return u.String()
}

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string {
			return with(t, testbroker.URL(t, "nats"), "lease", "5s")
		},
		Sever: func(t testing.TB, at string) (string, func()) {
			link := testbroker.Proxy(t, at)
			return link.URL(), link.Cut
		},
		Kill: func(t testing.TB, at string) (string, func()) {
			link := testbroker.Proxy(t, at)
			return link.URL(), func() {
				link.Refuse(true)
				link.Cut()
			}
		},
		Pause: func(t testing.TB, at string) (string, func(), func()) {
			link := testbroker.Proxy(t, at)
			return link.URL(), func() { link.Stall(true) }, func() { link.Stall(false) }
		},
		Restart: func(t testing.TB) (string, func()) {
			b := testbroker.Start(t, "nats")
			return with(t, b.URL(), "lease", "5s"), b.Restart
		},
		Newer: makeNewer,
	})
}

// makeNewer raises the format of every stream of the namespace at raw.
func makeNewer(t testing.TB, raw string) {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	vhost := u.Query().Get("vhost")
	u.RawQuery = ""
	nc, err := natsgo.Connect(u.String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	streams := js.ListStreams(ctx)
	n := 0
	for info := range streams.Info() {
		if !strings.Contains(info.Config.Name, vhost) {
			continue
		}
		info.Config.Metadata["polymq-format"] = "2"
		if _, err := js.UpdateStream(ctx, info.Config); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if err := streams.Err(); err != nil {
		t.Fatal(err)
	}
	if n == 0 {
		t.Fatal("the namespace has no stream")
	}
}
