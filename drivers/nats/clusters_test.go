//go:build clusters

package nats_test

import (
	"testing"
	"time"

	"github.com/polymq/polymq/conformance"
	"github.com/polymq/polymq/internal/testbroker"
)

// TestConformanceOfCluster: the suite on three nodes, none of which dies.
func TestConformanceOfCluster(t *testing.T) {
	c := testbroker.StartCluster(t, "nats")
	conformance.Run(t, conformance.Backend{
		Namespace: func(t testing.TB) string {
			t.Helper()
			return with(t, c.Namespace(), "lease", "2s")
		},
		Patience: 10 * time.Second,
	})
}
