package nats

import (
	"sync"
	"testing"

	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestGroundOfMany: where several clients come to a namespace at once that nobody has
// used, in a cluster, one makes its stream, which the others do not see at once.
func TestGroundOfMany(t *testing.T) {
	cluster := testbroker.StartCluster(t, "nats")
	for range 8 {
		url := cluster.Namespace()
		var work sync.WaitGroup
		for range 4 {
			conn := emulated(t, openRaw(t, url))
			work.Go(func() {
				if err := conn.Declare(within(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}); err != nil {
					t.Error(err)
				}
			})
		}
		work.Wait()
	}
}
