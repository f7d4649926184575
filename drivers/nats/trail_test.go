package nats

import (
	"fmt"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
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
