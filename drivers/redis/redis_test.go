package redis

import (
	"testing"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string { return testbroker.URL(t, "redis") + "&lease=2s" },
		Sever: func(t testing.TB, url string) (string, func()) {
			link := testbroker.Proxy(t, url)
			return link.URL(), link.Cut
		},
		Kill: func(t testing.TB, url string) (string, func()) {
			link := testbroker.Proxy(t, url)
			return link.URL(), func() { link.Refuse(true); link.Cut() }
		},
		Pause: func(t testing.TB, url string) (string, func(), func()) {
			link := testbroker.Proxy(t, url)
			return link.URL(), func() { link.Stall(true) }, func() { link.Stall(false) }
		},
		Restart: func(t testing.TB) (string, func()) {
			b := testbroker.Start(t, "redis")
			safe(t, b)
			return b.URL() + "?lease=2s", b.Restart
		},
		Newer: func(t testing.TB, url string) {
			u, err := driver.ParseURL(url)
			if err != nil {
				t.Fatal(err)
			}
			cfg, err := parse(u)
			if err != nil {
				t.Fatal(err)
			}
			if err := raw(t, url).HSet(ctxT(t), cfg.prefix+"}:version", "wire", "2").Err(); err != nil {
				t.Fatal(err)
			}
		},
	})
}
