package nats

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func inspect(t testing.TB, c driver.Conn, queue string) driver.QueueInfo {
	t.Helper()
	info, err := c.Inspect(within(t), queue)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// expect receives messages in an order and acknowledges them.
func expect(t testing.TB, s driver.Subscriber, ids ...string) {
	t.Helper()
	for i, d := range receive(t, s, len(ids)) {
		if d.Message.ID != ids[i] {
			t.Fatalf("message %d is %s, not %s", i, d.Message.ID, ids[i])
		}
		settle(t, s, d, driver.Ack, 0)
	}
}

func TestDropHead(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q", MaxLength: 3})
	p := publisherOf(t, c)
	for i := range 10 {
		mustPublish(t, p, "q", fmt.Sprint("m", i))
		if info := inspect(t, c, "q"); info.Ready != min(i+1, 3) {
			t.Fatalf("after %d messages %d are ready", i+1, info.Ready)
		}
	}
	s := subscribe(t, c, "q", 2)
	ds := receive(t, s, 2)
	mustPublish(t, p, "q", "x", "y")
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 3, Unsettled: 2, Consumers: 1}) {
		t.Fatalf("%+v", info)
	}
	settle(t, s, ds[0], driver.Nack, time.Hour) // delayed, so it does not count yet
	settle(t, s, ds[1], driver.Nack, 0)         // drops itself, being at the head
	expect(t, s, "m9", "x", "y")
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 1, Consumers: 1}) {
		t.Fatalf("%+v", info)
	}
	if n, err := c.Purge(within(t), "q"); n != 1 || err != nil {
		t.Fatal(n, err)
	}
}

func TestRejectPublish(t *testing.T) {
	url := testbroker.URL(t, "nats")
	c, other := open(t, url), open(t, url)
	declare(t, c, routing.Queue{Name: "q", MaxLength: 2, MaxBytes: 10, Overflow: routing.RejectPublish})
	p, po := publisherOf(t, c), publisherOf(t, other)
	mustPublish(t, p, "q", "m0")
	mustPublish(t, po, "q", "m1")
	for _, p := range []driver.Publisher{p, po, p} {
		if err := publish(t, p, "q", "m2")[0]; !errors.Is(err, driver.ErrRejected) {
			t.Fatalf("publishing to a full queue: %v", err)
		}
	}
	s := subscribe(t, other, "q", 1)
	expect(t, s, "m0", "m1")
	mustPublish(t, p, "q", "m2") // under the id that was refused
	mustPublish(t, po, "q", "m2")
	if err := publish(t, p, "q", "12345678901")[0]; !errors.Is(err, driver.ErrRejected) {
		t.Fatalf("publishing too many bytes: %v", err)
	}
	mustPublish(t, p, "q", "1234567890")
	expect(t, s, "m2", "1234567890")
}
