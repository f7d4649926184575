package nats

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// stored2queue is a declared queue as the store knows it.
func stored2queue(t testing.TB, s *store, q routing.Queue) *emulate.Queue {
	t.Helper()
	stream := queueOf(t, s, q.Name).stream
	eq := &emulate.Queue{Queue: q, Incarnation: stream[len(s.names.queueStream("")):]}
	s.Attach(eq)
	return eq
}

func idleFor(d time.Duration) emulate.DeleteOptions { return emulate.DeleteOptions{Idle: d} }

// TestSettleUp: the stream of a queue with a book does not grow with what went
// through the queue, and who comes late has the same book.
func TestSettleUp(t *testing.T) {
	url := testbroker.URL(t, "nats")
	s := openRaw(t, url)
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 3}
	declare(t, c, q)
	p := publisherOf(t, c)
	mustPublish(t, p, "q", "stays")
	sub := subscribe(t, c, "q", 100)
	held := receive(t, sub, 1)[0]
	const rounds, each = 30, 500
	for i := range rounds {
		mustPublish(t, p, "q", numbered(fmt.Sprint("m", i, "-"), 0, each)...)
		for range each {
			settle(t, sub, receive(t, sub, 1)[0], driver.Ack, 0)
		}
	}
	settle(t, sub, held, driver.Nack, time.Hour)
	mustPublish(t, p, "q", "last")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stream, err := s.js.Stream(within(t), queueOf(t, s, "q").stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.Msgs; n < 2*snapshotEvery+1000 {
			t.Logf("%d messages left of %d", n, rounds*each)
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("%d messages left of %d", n, rounds*each)
		}
	}
	late := open(t, url)
	want := driver.QueueInfo{Ready: 1, Unsettled: 1, Consumers: 1}
	if info := inspect(t, c, "q"); info != want {
		t.Fatalf("%+v", info)
	}
	if info := inspect(t, late, "q"); info != want {
		t.Fatalf("seen late: %+v", info)
	}
	if err := sub.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, subscribe(t, late, "q", 1), "last")
}

// TestManyAtOnce: connections publish to, consume from and lose a queue with a
// limit; every message that was confirmed is delivered, and none that was not.
func TestManyAtOnce(t *testing.T) {
	url := testbroker.URL(t, "nats") + "&lease=1s"
	c := open(t, url)
	declare(t, c, routing.Queue{Name: "q", MaxPriority: 2, MaxLength: 50, Overflow: routing.RejectPublish})
	var mu sync.Mutex
	confirmed, got := map[string]bool{}, map[string]int{}
	var refused atomic.Int64
	var publishers, consumers sync.WaitGroup
	var subs []driver.Subscriber
	for w := range 3 {
		publishers.Go(func() {
			conn := open(t, url)
			p := publisherOf(t, conn)
			for i := range 40 {
				ids := numbered(fmt.Sprintf("w%d-%d-", w, i), 0, 20)
				for j, err := range publish(t, p, "q", ids...) {
					mu.Lock()
					if err == nil {
						confirmed[ids[j]] = true
					} else {
						refused.Add(1)
					}
					mu.Unlock()
				}
			}
		})
	}
	for range 3 {
		link := testbroker.Proxy(t, url)
		conn := open(t, link.URL())
		sub := subscribe(t, conn, "q", 10)
		consumers.Go(func() {
			buf := make([]*driver.Delivery, 10)
			r := rand.New(rand.NewPCG(1, 2))
			for {
				n, err := sub.Receive(t.Context(), buf)
				if err != nil {
					return
				}
				for _, d := range buf[:n] {
					if r.IntN(20) == 0 {
						sub.Settle(t.Context(), d, driver.Nack, 0)
						continue
					}
					mu.Lock()
					got[d.Message.ID]++
					mu.Unlock()
					sub.Settle(t.Context(), d, driver.Ack, 0)
				}
				if r.IntN(100) == 0 {
					link.Cut()
				}
			}
		})
		subs = append(subs, sub)
	}
	publishers.Wait()
	defer consumers.Wait()
	for _, sub := range subs {
		defer sub.Close(t.Context())
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if info := inspect(t, c, "q"); info.Ready+info.Unsettled == 0 {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("left over: %+v", info)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for id := range confirmed {
		if got[id] == 0 {
			t.Errorf("%s was confirmed and never delivered", id)
		}
	}
	for id := range got {
		if !confirmed[id] {
			t.Errorf("%s was refused and delivered", id)
		}
	}
	t.Logf("%d confirmed, %d refused", len(confirmed), refused.Load())
}

// TestManySnapshots: several write the book down at once and delete what led to
// it; nothing is lost, and who comes late or lost its connection has the same.
func TestManySnapshots(t *testing.T) {
	url := testbroker.URL(t, "nats")
	c := open(t, url)
	declare(t, c, routing.Queue{Name: "q", MaxPriority: 1}, routing.Queue{Name: "other"})
	mustPublish(t, publisherOf(t, c), "q", "stays")
	holder := subscribe(t, c, "q", 1)
	receive(t, holder, 1) // so that what goes is always behind something
	const connections, rounds, each = 3, 16, 250
	var mu sync.Mutex
	got := map[string]int{}
	var wg sync.WaitGroup
	var links []*testbroker.Link
	var subs []driver.Subscriber
	for w := range connections {
		link := testbroker.Proxy(t, url)
		conn := open(t, link.URL())
		p, s := publisherOf(t, conn), subscribe(t, conn, "q", 100)
		links, subs = append(links, link), append(subs, s)
		wg.Go(func() {
			for i := range rounds {
				mustPublish(t, p, "q", numbered(fmt.Sprintf("w%d-%d-", w, i), 0, each)...)
			}
		})
		go func() {
			buf := make([]*driver.Delivery, 100)
			for {
				n, err := s.Receive(t.Context(), buf)
				if err != nil {
					return
				}
				for _, d := range buf[:n] {
					mu.Lock()
					got[d.Message.ID]++
					mu.Unlock()
					if err := s.Settle(t.Context(), d, driver.Ack, 0); err != nil {
						t.Errorf("settling %s: %v", d.Message.ID, err)
					}
				}
			}
		}()
	}
	wg.Go(func() {
		for i := range 6 {
			time.Sleep(100 * time.Millisecond)
			links[i%connections].Cut()
		}
	})
	wg.Wait()
	want := driver.QueueInfo{Unsettled: 1, Consumers: connections + 1}
	for deadline := time.Now().Add(30 * time.Second); inspect(t, c, "q") != want; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v", inspect(t, c, "q"))
		}
	}
	if info := inspect(t, open(t, url), "q"); info != want {
		t.Errorf("seen late: %+v", info)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(got) != connections*rounds*each {
		t.Errorf("%d of %d messages came", len(got), connections*rounds*each)
	}
	for id, n := range got {
		if n != 1 {
			t.Errorf("%s came %d times", id, n)
		}
	}
	for _, s := range subs {
		if err := s.Close(within(t)); err != nil {
			t.Error(err)
		}
	}
}

// TestPublisherKeepsNoBook: who only publishes to a queue without limits does not
// read its stream.
func TestPublisherKeepsNoBook(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	ledgers := func() int {
		s.ledgersMu.Lock()
		defer s.ledgersMu.Unlock()
		return len(s.ledgers)
	}
	p := publisherOf(t, c)
	for name, q := range map[string]routing.Queue{"priority": {MaxPriority: 1}, "single": {SingleActiveConsumer: true}} {
		q.Name = name
		declare(t, c, q)
		mustPublish(t, p, name, numbered("m", 0, 10)...)
		if n := ledgers(); n > 0 {
			t.Errorf("%s: %d ledgers of who only publishes", name, n)
		}
	}
	if info := inspect(t, c, "single"); info.Ready != 10 {
		t.Errorf("%+v", info)
	}
	if ledgers() != 1 {
		t.Error("no ledger of a queue that is looked at")
	}
}

// TestOtherRules: where a queue goes by the rules of another version, nobody
// waits for a book that cannot be, and what is wrong is said.
func TestOtherRules(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	declare(t, c, routing.Queue{Name: "q", MaxLength: 5, Overflow: routing.RejectPublish})
	stream, err := s.js.Stream(within(t), queueOf(t, s, "q").stream)
	if err != nil {
		t.Fatal(err)
	}
	cfg := stream.CachedInfo().Config
	cfg.Metadata[metaBook] = "2"
	if _, err := s.js.UpdateStream(within(t), cfg); err != nil {
		t.Fatal(err)
	}
	err = publish(t, publisherOf(t, c), "q", "x")[0]
	if !errors.Is(err, driver.ErrUnconfirmed) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("publishing: %v", err)
	}
	if _, err := c.Subscriber(within(t), driver.SubscriberConfig{Queue: "q", Prefetch: 1}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("subscribing: %v", err)
	}
	if _, err := c.Inspect(within(t), "q"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("inspecting: %v", err)
	}
	if info, err := stream.Info(within(t)); err != nil || info.State.LastSeq != 1 {
		t.Errorf("deeds were written to the stream: %+v, %v", info.State, err)
	}
}

// TestUnreadableSnapshot: nor does anybody wait for a book that was written down
// in a way that cannot be read.
func TestUnreadableSnapshot(t *testing.T) {
	url := testbroker.URL(t, "nats")
	s, c := openRaw(t, url), open(t, url)
	q := routing.Queue{Name: "q", MaxLength: 5, Overflow: routing.RejectPublish}
	declare(t, c, q)
	h := queueOf(t, s, "q")
	for range 2 { // there are messages behind it
		m := &natsgo.Msg{Subject: h.prefix + ".s", Data: []byte("of another version"), Header: natsgo.Header{headerAt: {"0"}, headerFrom: {"1"}, headerBefore: {"0"}}}
		if _, err := s.publishOne(within(t), m); err != nil {
			t.Fatal(err)
		}
	}
	err := publish(t, publisherOf(t, c), "q", "x")[0]
	if !errors.Is(err, driver.ErrUnconfirmed) || !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("publishing: %v", err)
	}
	if _, err := c.Subscriber(within(t), driver.SubscriberConfig{Queue: "q", Prefetch: 1}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("subscribing: %v", err)
	}
}

// TestNobodyButPublishers: what a limit drops leaves the broker also where nobody
// ever reads the queue.
func TestNobodyButPublishers(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxLength: 5}
	declare(t, c, q)
	p := publisherOf(t, c)
	mustPublish(t, p, "q", numbered("m", 0, snapshotEvery+100)...)
	for ctx := within(t); ; {
		stream, err := s.js.Stream(ctx, queueOf(t, s, "q").stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := stream.CachedInfo().State.Msgs; n < snapshotEvery {
			break
		} else if wait(ctx, 5*time.Millisecond) != nil {
			t.Fatalf("%d messages in the stream of a queue of 5", n)
		}
	}
}
