package redis

import (
	"testing"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string { return testbroker.URL(t, "redis") + "&lease=5s" },
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
			return b.URL() + "?lease=5s", b.Restart
		},
		Newer: newer,
	})
}

func newer(t testing.TB, url string) {
	_, s := dial(t, url)
	if err := s.calls().HSet(ctxT(t), s.namespace()+":version", "wire", "2").Err(); err != nil {
		t.Fatal(err)
	}
}

// TestConformanceOfClusters: the suite on servers that stand in for one another. Who
// dies without a word is left out: it takes a minute, and what then happens does not
// go by who the server is. What is restarted is in TestLeaderLostUnderLoad.
func TestConformanceOfClusters(t *testing.T) {
	for _, scheme := range clusters {
		t.Run(scheme, func(t *testing.T) {
			c := testbroker.StartClusterWith(t, scheme, testbroker.Setup{Patient: true})
			conformance.Run(t, conformance.Backend{
				Open:      openLinked,
				Namespace: func(testing.TB) string { return with(c.Namespace(), "lease=2s") },
				Sever: func(t testing.TB, url string) (string, func()) {
					l, through := newLinks(t, url)
					return through, func() { l.each((*testbroker.Link).Cut, false) }
				},
				Pause: func(t testing.TB, url string) (string, func(), func()) {
					l, through := newLinks(t, url)
					return through, func() { l.each(func(link *testbroker.Link) { link.Stall(true) }, true) },
						func() { l.each(func(link *testbroker.Link) { link.Stall(false) }, false) }
				},
				Newer: newer,
			})
		})
	}
}
