//go:build clusters

package amqp_test

import (
	"testing"
	"time"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestConformanceOfCluster: the suite on three nodes, none of which dies.
func TestConformanceOfCluster(t *testing.T) {
	c := testbroker.StartCluster(t, "amqp")
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string {
			t.Helper()
			return c.Namespace()
		},
		Patience: 10 * time.Second,
	})
}
