package nats

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestLateDelivery holds up what the server sends to one subscriber for longer
// than a lease, so that another one gets the message. The first must not take
// it for its own when it arrives, since what it then settled would be the
// delivery of the second: the server does not tell them apart.
func TestLateDelivery(t *testing.T) { withLeases(t, lateDelivery) }

func lateDelivery(t testing.TB, lease time.Duration) {
	url := testbroker.URL(t, "nats") + fmt.Sprint("&lease=", lease)
	link := testbroker.Proxy(t, url)
	direct := open(t, url)
	declare(t, direct, routing.Queue{Name: "q"})
	p := publisherOf(t, direct)
	mustPublish(t, p, "q", "first")
	a := subscribe(t, open(t, link.URL()), "q", 2)
	receive(t, a, 1) // and the request is there for another one
	link.Stall(true)
	defer link.Stall(false)
	mustPublish(t, p, "q", "m")
	b := subscribe(t, direct, "q", 2)
	d := receive(t, b, 1)[0]
	for d.Message.ID != "m" {
		d = receive(t, b, 1)[0]
	}
	if d.Attempt != 2 {
		t.Fatalf("attempt %d: the message did not go to the stalled subscriber first", d.Attempt)
	}
	link.Stall(false)
	ctx, cancel := context.WithTimeout(t.Context(), 3*lease)
	defer cancel()
	buf := make([]*driver.Delivery, 1)
	if n, err := a.Receive(ctx, buf); err == nil {
		t.Fatalf("the stalled subscriber was handed %d, attempt %d, which another one holds", n, buf[0].Attempt)
	}
	if err := b.Extend(within(t), d); err != nil {
		t.Fatal(err)
	}
	settle(t, b, d, driver.Ack, 0)
}

// TestRecordsGo: what says which deliveries do not count is there while the
// message is, and goes with it.
func TestRecordsGo(t *testing.T) {
	raw := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, raw)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c)
	records := func(want int) {
		t.Helper()
		seqs, _, err := raw.records(within(t), queueOf(t, raw, "q"))
		deadline := time.Now().Add(10 * time.Second) // the server removes what replaces them after a second
		for len(seqs) > want && err == nil && time.Now().Before(deadline) {
			time.Sleep(20 * time.Millisecond)
			seqs, _, err = raw.records(within(t), queueOf(t, raw, "q"))
		}
		if err != nil || len(seqs) != want {
			t.Fatalf("%d records, %v; want %d", len(seqs), err, want)
		}
	}
	giveBack := func() {
		t.Helper()
		s := subscribe(t, c, "q", 20)
		receive(t, s, 1)
		for {
			if info, err := c.Inspect(within(t), "q"); err != nil {
				t.Fatal(err)
			} else if info.Ready == 0 {
				break
			}
		}
		if err := s.Close(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	ids := numbered("m", 0, 20)
	mustPublish(t, p, "q", ids...)
	giveBack()
	records(19)
	if n, err := c.Purge(within(t), "q"); err != nil || n != 20 {
		t.Fatalf("purged %d, %v", n, err)
	}
	records(0)
	mustPublish(t, p, "q", numbered("n", 0, 20)...)
	giveBack()
	s := subscribe(t, c, "q", 20)
	attempts := 0
	for range 20 {
		d := receive(t, s, 1)[0]
		attempts += d.Attempt
		settle(t, s, d, driver.Ack, 0)
	}
	if attempts != 21 {
		t.Errorf("%d attempts of 20 messages, of which one was handed out before", attempts)
	}
	records(0)
}

// queueOf is the handle of a declared queue.
func queueOf(t testing.TB, s *store, name string) *handle {
	t.Helper()
	for stream := range s.js.ListStreams(within(t)).Info() {
		if incarnation, ok := strings.CutPrefix(stream.Config.Name, s.names.queueStream("")); ok && stream.Config.Metadata[metaQueue] == name {
			return s.newHandle(&emulate.Queue{Incarnation: incarnation})
		}
	}
	t.Fatalf("no stream of the queue %q", name)
	return nil
}
