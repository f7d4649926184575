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
	for i, id := range ids {
		d := receive(t, s, 1)[0]
		if d.Message.ID != id {
			t.Fatalf("message %d is %s, not %s", i, d.Message.ID, id)
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
	settle(t, s, ds[0], driver.Nack, time.Hour) // delayed, so it does not count yet; m9 is delivered
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 3, Unsettled: 2, Consumers: 1}) {
		t.Fatalf("%+v", info)
	}
	mustPublish(t, p, "q", "z")
	settle(t, s, ds[1], driver.Nack, 0) // drops itself, being at the head
	expect(t, s, "m9", "x", "y", "z")
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
	d := receive(t, s, 1)[0] // unsettled, it takes no room any more
	mustPublish(t, p, "q", "1234567890")
	if d.Message.ID != "m2" {
		t.Fatalf("%s before m2", d.Message.ID)
	}
	settle(t, s, d, driver.Ack, 0)
	expect(t, s, "1234567890")
}

func TestPriority(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q", MaxPriority: 5})
	p := publisherOf(t, c)
	for i, priority := range []uint8{0, 9, 3, 5, 0, 3, 200} {
		o := &outcome{left: 1, done: make(chan struct{})}
		id := fmt.Sprint("m", i)
		p.Publish(within(t), []*driver.Publishing{{Message: &driver.Message{Key: "q", Body: []byte(id), Priority: priority}, ID: id, Owner: o}}, true)
		<-o.done
	}
	s := subscribe(t, c, "q", 1)
	d := receive(t, s, 1)[0]
	if d.Message.ID != "m1" || d.Message.Priority != 9 || string(d.Message.Body) != "m1" {
		t.Fatalf("%+v", d)
	}
	settle(t, s, d, driver.Nack, 0)
	d = receive(t, s, 1)[0]
	if d.Message.ID != "m1" || d.Attempt != 2 || !d.Redelivered {
		t.Fatalf("%+v", d)
	}
	settle(t, s, d, driver.Ack, 0)
	expect(t, s, "m3", "m6", "m2", "m5", "m0", "m4")
}

// TestSingleActive: the first that came gets everything, then the next, whether
// the one before closed, or died with its connection.
func TestSingleActive(t *testing.T) { withLeases(t, singleActive) }

func singleActive(t testing.TB, lease time.Duration) {
	url := testbroker.URL(t, "nats")
	c := open(t, url)
	declare(t, c, routing.Queue{Name: "q", SingleActiveConsumer: true})
	p := publisherOf(t, c)
	link := testbroker.Proxy(t, url+fmt.Sprint("&lease=", lease))
	defer link.Refuse(false)
	first, second, third := subscribe(t, c, "q", 2), subscribe(t, open(t, link.URL()), "q", 10), subscribe(t, open(t, url), "q", 10)
	mustPublish(t, p, "q", numbered("m", 0, 6)...)
	ds := receive(t, first, 2)
	settle(t, first, ds[0], driver.Ack, 0)
	if d := receive(t, first, 1)[0]; d.Message.ID != "m2" {
		t.Fatal(d.Message.ID)
	}
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 3, Unsettled: 2, Consumers: 3}) {
		t.Fatalf("%+v", info)
	}
	if err := first.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	for i, d := range receive(t, second, 5) {
		if want := []string{"m1", "m2", "m3", "m4", "m5"}[i]; d.Message.ID != want || d.Redelivered != (i < 2) {
			t.Fatalf("%s, redelivered %v", d.Message.ID, d.Redelivered)
		}
	}
	link.Refuse(true)
	link.Cut()
	for i, d := range receive(t, third, 5) {
		if want := []string{"m1", "m2", "m3", "m4", "m5"}[i]; d.Message.ID != want || d.Attempt != 2+min(1, max(0, 2-i)) {
			t.Fatalf("%s, attempt %d", d.Message.ID, d.Attempt)
		}
		settle(t, third, d, driver.Ack, 0)
	}
	if err := third.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{}) {
		t.Fatalf("%+v", info)
	}
}

// TestKeptAfterRestart: a book survives the server, and who read it goes on.
func TestKeptAfterRestart(t *testing.T) {
	b := testbroker.Start(t, "nats")
	c := open(t, b.URL())
	declare(t, c, routing.Queue{Name: "q", MaxPriority: 1, MaxLength: 5})
	p := publisherOf(t, c)
	mustPublish(t, p, "q", numbered("m", 0, 7)...)
	s := subscribe(t, c, "q", 2)
	ds := receive(t, s, 2)
	b.Restart()
	if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 3, Unsettled: 2, Consumers: 1}) {
		t.Fatalf("%+v", info)
	}
	for _, d := range ds {
		settle(t, s, d, driver.Ack, 0)
	}
	mustPublish(t, p, "q", "n")
	expect(t, s, "m4", "m5", "m6", "n")
}

// TestCloseGivesNothing: a subscriber that closes gets nothing for what it gives
// back.
func TestCloseGivesNothing(t *testing.T) {
	c := open(t, testbroker.URL(t, "nats"))
	declare(t, c, routing.Queue{Name: "q", MaxPriority: 1})
	s := subscribe(t, c, "q", 1)
	mustPublish(t, publisherOf(t, c), "q", "m0", "m1")
	receive(t, s, 1)
	if err := s.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	for i, d := range receive(t, subscribe(t, c, "q", 2), 2) {
		if d.Message.ID != fmt.Sprint("m", i) || d.Redelivered != (i == 0) || d.Attempt != 2-i {
			t.Fatalf("%s: redelivered %v, attempt %d", d.Message.ID, d.Redelivered, d.Attempt)
		}
	}
}
