package nats

import (
	"errors"
	"fmt"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestLostOnTheWay: what a route or gateway drops on its way to a process is
// read again, and not taken for deleted.
func TestLostOnTheWay(t *testing.T) {
	for name, next := range map[string]natsgo.Msg{
		"before another": {Reply: "$JS.ACK.%s.log.1.%d.2.%d.0", Header: natsgo.Header{"Nats-Msg-Size": {"2"}}},
		"as the last":    {Header: natsgo.Header{"Status": {"100"}, "Nats-Last-Consumer": {"2"}}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openRaw(t, testbroker.URL(t, "nats"))
			c := emulated(t, s)
			q := routing.Queue{Name: "q", MaxPriority: 1}
			declare(t, c, q)
			p := publisherOf(t, c)
			mustPublish(t, p, "q", "m0")
			inspect(t, c, "q")
			l, err := s.ledger(stored2queue(t, s, q))
			if err != nil {
				t.Fatal(err)
			}
			l.mu.Lock()
			l.trail.dead = true
			last := l.at
			fake := &trail{l: l, heard: time.Now()}
			l.trail = fake
			l.mu.Unlock()
			mustPublish(t, p, "q", "m1", "m2") // of which the first does not come
			next.Subject = l.h.subject
			if next.Reply != "" {
				next.Reply = fmt.Sprintf(next.Reply, l.h.stream, last+2, time.Now().UnixNano())
			}
			fake.receive(&next)
			l.mu.Lock()
			if !fake.dead {
				t.Error("it goes on")
			}
			l.mu.Unlock()
			if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 3}) {
				t.Errorf("%+v", info)
			}
			l.mu.Lock()
			defer l.mu.Unlock()
			if l.book.entries[last+1] == nil {
				t.Error("the book does not have a message that the stream has")
			}
		})
	}
}

// TestNothingComesTwice: a process whose connection is back does not get again
// what it has settled, though the last message that it read is gone, as those
// with a time to live are.
func TestNothingComesTwice(t *testing.T) {
	url := testbroker.URL(t, "nats")
	link := testbroker.Proxy(t, url)
	s, direct := openRaw(t, link.URL()), openRaw(t, url)
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	p, sub := publisherOf(t, c), subscribe(t, c, "q", 2)
	mustPublish(t, p, "q", "m0", "m1")
	ds := receive(t, sub, 2)
	settle(t, sub, ds[0], driver.Ack, 0)
	inspect(t, c, "q")
	h := queueOf(t, s, "q")
	seq, err := direct.publishOne(within(t), h.record(0, 0))
	if err != nil {
		t.Fatal(err)
	}
	l := ledgerOf(t, s, q)
	for ctx := within(t); ; {
		_, there, err := direct.leaderGet(ctx, h.stream, getRequest{Seq: seq})
		if err != nil {
			t.Fatal(err)
		}
		if !there {
			break
		}
		if err := wait(ctx, 20*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	l.mu.Lock()
	if l.at != seq {
		t.Fatalf("it is at %d, not %d", l.at, seq)
	}
	l.mu.Unlock()
	link.Cut()
	settle(t, sub, ds[1], driver.Ack, 0)
	inspect(t, c, "q")
	mustPublish(t, p, "q", "m2", "m3")
	expect(t, sub, "m2", "m3")
}

// TestDeedsLost: what a subscriber did comes about also if the server lost it
// again, and gave its place to something else.
func TestDeedsLost(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	sub := subscribe(t, c, "q", 1)
	mustPublish(t, publisherOf(t, c), "q", "m0", "m1")
	k := receive(t, sub, 1)[0].Tag.(*emulate.Delivery).Ref.(*kept)
	l := ledgerOf(t, s, q)
	l.mu.Lock()
	ack := &errand{deed: deed{Do: doAck, By: l.book.readers[0].id, List: [][]int64{{int64(k.Seq), int64(k.Gen)}}}, seq: l.at}
	asked := &errand{deed: deed{Do: doTick}, done: make(chan error, 1)}
	l.sent["lost"] = []*errand{ack, asked}
	l.mu.Unlock()
	signal(l.wake)
	if err := <-asked.done; !errors.Is(err, errSkipped) {
		t.Error(err)
	}
	for ctx := within(t); inspect(t, c, "q") != (driver.QueueInfo{Unsettled: 1, Consumers: 1}); { // m1
		if err := wait(ctx, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}
