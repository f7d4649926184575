package amqp_test

import (
	"testing"

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
	})
}
