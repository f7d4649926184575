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

// TestPurgedByHand: after somebody has purged the stream by the server's own
// means, whoever comes next and those who were there agree.
func TestPurgedByHand(t *testing.T) {
	for _, written := range []bool{false, true} {
		t.Run(fmt.Sprint("snapshot ", written), func(t *testing.T) {
			url := testbroker.URL(t, "nats")
			s := openRaw(t, url)
			c := emulated(t, s)
			q := routing.Queue{Name: "q", MaxPriority: 1}
			declare(t, c, q)
			p, before := publisherOf(t, c), subscribe(t, c, "q", 2)
			mustPublish(t, p, "q", numbered("m", 0, 10)...)
			held := receive(t, before, 2)[0]
			l := ledgerOf(t, s, q)
			if written {
				if err := l.settleUp(within(t)); err != nil {
					t.Fatal(err)
				}
			}
			stream, err := s.js.Stream(within(t), l.h.stream)
			if err == nil {
				err = stream.Purge(within(t))
			}
			if err != nil {
				t.Fatal(err)
			}
			late := open(t, url)
			after := subscribe(t, late, "q", 2)
			agree := func() { // that nothing is there
				t.Helper()
				want := driver.QueueInfo{Consumers: 2}
				for ctx := within(t); inspect(t, c, "q") != want || inspect(t, late, "q") != want; {
					if err := wait(ctx, 5*time.Millisecond); err != nil {
						t.Fatalf("%+v, %+v", inspect(t, c, "q"), inspect(t, late, "q"))
					}
				}
			}
			agree()
			if err := before.Settle(within(t), held, driver.Ack, 0); !errors.Is(err, driver.ErrLost) {
				t.Error(err)
			}
			mustPublish(t, p, "q", numbered("n", 0, 4)...)
			got := map[string]bool{}
			for _, sub := range []driver.Subscriber{before, after} {
				for _, d := range receive(t, sub, 2) {
					got[d.Message.ID] = true
					settle(t, sub, d, driver.Ack, 0)
				}
			}
			if len(got) != 4 {
				t.Error(got)
			}
			agree()
		})
	}
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

// TestLastLost: what the server lost of the end of the stream, before anybody
// read it, is not waited for.
func TestLastLost(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	mustPublish(t, publisherOf(t, c), "q", "m0")
	inspect(t, c, "q")
	l := ledgerOf(t, s, q)
	asked := &errand{deed: deed{Do: doTick}, done: make(chan error, 1)}
	l.mu.Lock()
	l.seen = l.at + 1
	asked.seq = l.seen
	l.sent["lost"] = []*errand{asked}
	l.trail.die() // with the connection
	l.mu.Unlock()
	ctx := within(t)
	if err := l.ready(ctx); err != nil {
		t.Error(err)
	}
	select {
	case err := <-asked.done:
		if !errors.Is(err, errSkipped) {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("a deed that was lost is waited for")
	}
}
