package amqp_test

import (
	"testing"
	"time"

	"github.com/polymq/polymq/conformance"
	_ "github.com/polymq/polymq/drivers/amqp"
	"github.com/polymq/polymq/internal/testbroker"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string { return testbroker.URL(t, "amqp") },
		Sever: func(t testing.TB, url string) (string, func()) {
			link := testbroker.Proxy(t, url)
			return link.URL(), link.Cut
		},
		Kill: func(t testing.TB, url string) (string, func()) {
			link := testbroker.Proxy(t, url)
			return link.URL(), func() {
				link.Refuse(true)
				link.Cut()
			}
		},
		Pause: func(t testing.TB, url string) (string, func(), func()) {
			link := testbroker.Proxy(t, url)
			return link.URL(), func() { link.Stall(true) }, func() { link.Stall(false) }
		},
		Restart: func(t testing.TB) (string, func()) {
			b := testbroker.Start(t, "amqp")
			return b.URL(), b.Restart
		},
		Patience: 7 * time.Second,
	})
}
