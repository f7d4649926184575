package nats

import (
	"context"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestConsumerLeaderHangs: a subscriber asks the server that leads the queue's consumer
// for a message, which is not the one it is connected to, when that hangs already. The
// next leader knows nothing of the request, and nobody says so.
func TestConsumerLeaderHangs(t *testing.T) {
	c := testbroker.StartCluster(t, "nats")
	admin := openRaw(t, c.URL())
	declare(t, emulated(t, admin), routing.Queue{Name: "q"})
	consumer, err := admin.js.Consumer(within(t), queueOf(t, admin, "q").stream, consumerName)
	if err != nil {
		t.Fatal(err)
	}
	leader := nodeNamed(t, c, consumer.CachedInfo().Cluster.Leader)
	conn := open(t, c.Nodes[(leader+1)%len(c.Nodes)].URL())
	sub, pub := subscribe(t, conn, "q", 1), publisherOf(t, conn)
	mustPublish(t, pub, "q", "before")
	held := receive(t, sub, 1)[0]
	c.Nodes[leader].Pause()
	defer c.Nodes[leader].Resume()
	settle(t, sub, held, driver.Ack, 0) // and so it asks for another
	mustPublish(t, pub, "q", "after")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // an election has no limit
	defer cancel()
	for buf := make([]*driver.Delivery, 1); ; {
		if _, err := sub.Receive(ctx, buf); err != nil {
			t.Fatal(err)
		}
		settle(t, sub, buf[0], driver.Ack, 0)
		if buf[0].Message.ID == "after" { // and not "before", whose acknowledgement was lost, too
			return
		}
	}
}
