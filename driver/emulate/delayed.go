package emulate

import (
	"context"
	"fmt"
	"time"

	"github.com/polymq/polymq/driver"
)

// The library's own queues.
const (
	delayedQueue    = "polymq.delayed"    // messages wait here for the end of their delay
	unroutableQueue = "polymq.unroutable" // those that no queue took then
)

// ensureDelayed sees to it that the queue for delayed messages is there: in
// the state that c.topo.current returns afterwards, under delayedQueue, though
// no exchange routes to it. A message to be delayed goes there as it is, with
// its Delay, its CC and BCC, and the exchange where it was published.
func (c *conn) ensureDelayed(ctx context.Context) (*Queue, error) {
	return nil, fmt.Errorf("%w: not made yet", driver.ErrUnconfirmed)
}

// due is when a message in the queue for delayed messages is to be routed, by
// the store's clock.
func due(d *Delivery) time.Time { return d.Stored.Add(d.Message.Delay) }
