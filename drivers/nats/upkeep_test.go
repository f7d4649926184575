package nats

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// ledgerOf is the ledger of a declared queue.
func ledgerOf(t testing.TB, s *store, q routing.Queue) *ledger {
	t.Helper()
	l, err := s.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestSnapshotInParts: what is more than fits into one message can be written
// down and read, and leaves nothing behind.
func TestSnapshotInParts(t *testing.T) {
	url := testbroker.URL(t, "nats")
	s := openRaw(t, url)
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	const n = 300
	sub := subscribe(t, c, "q", n)
	mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, n)...)
	for i, d := range receive(t, sub, n) {
		settle(t, sub, d, driver.Nack, time.Hour+time.Duration(i*i)*time.Millisecond)
	}
	if err := sub.Close(within(t)); err != nil {
		t.Fatal(err)
	}
	s.maxPayload = 400 // which only snapshots look at now
	l := ledgerOf(t, s, q)
	for range 3 {
		inspect(t, c, "q")
		if err := l.settleUp(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	inspect(t, c, "q")
	if m, err := l.newest(within(t)); err != nil || m.before == 0 {
		t.Fatalf("%+v, %v", m, err)
	}
	late := openRaw(t, url)
	if info := inspect(t, emulated(t, late), "q"); info != (driver.QueueInfo{Ready: n}) {
		t.Errorf("seen late: %+v", info)
	}
	other := ledgerOf(t, late, q)
	l.mu.Lock()
	other.mu.Lock()
	if x, y := l.book.delayed, other.book.delayed; len(x) != n || len(y) != n || x[0].due != y[0].due {
		t.Errorf("%d delayed, seen late %d", len(x), len(y))
	}
	other.mu.Unlock()
	l.mu.Unlock()
	s.maxPayload = 1 << 20
	inspect(t, c, "q")
	if err := l.settleUp(within(t)); err != nil {
		t.Fatal(err)
	}
	stream, err := s.js.Stream(within(t), l.h.stream)
	if err != nil {
		t.Fatal(err)
	}
	if msgs := stream.CachedInfo().State.Msgs; msgs != n+1 {
		t.Errorf("%d messages in the stream, not the %d and a snapshot", msgs, n)
	}
}

// TestSnapshotReplaced: a snapshot that is replaced while a newcomer reads what
// the one before speaks of does not keep it from reading on.
func TestSnapshotReplaced(t *testing.T) {
	url := testbroker.URL(t, "nats")
	writer, reader := openRaw(t, url), openRaw(t, url)
	c, late := emulated(t, writer), emulated(t, reader)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	sub := subscribe(t, c, "q", 4)
	mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, 6)...)
	ds := receive(t, sub, 4)
	w, r := ledgerOf(t, writer, q), ledgerOf(t, reader, q)
	settleUp := func() {
		t.Helper()
		inspect(t, c, "q")
		if err := w.settleUp(within(t)); err != nil {
			t.Fatal(err)
		}
	}
	settleUp()
	inspect(t, late, "q")
	m, err := r.newest(within(t))
	if err != nil {
		t.Fatal(err)
	}
	// The newcomer, of which each step is taken here.
	r.mu.Lock()
	r.trail.dead = true
	r.unlive()
	r.load, r.at = &loading{q: r.q, until: m.at}, 0
	newcomer := &trail{l: r, heard: time.Now()}
	r.trail = newcomer
	r.mu.Unlock()
	if err := r.settleUp(within(t)); err != nil {
		t.Fatal(err)
	}
	if now, err := r.newest(within(t)); err != nil || now.seq != m.seq {
		t.Errorf("a book that is not there was written down: %+v, %v", now, err)
	}
	next := m.from
	read := func(until uint64) {
		t.Helper()
		for ; next <= until; next++ {
			e, ok, err := writer.leaderGet(within(t), w.h.stream, getRequest{Seq: next})
			if err != nil {
				t.Fatal(err)
			}
			if ok {
				if e.header == nil {
					e.header = natsgo.Header{}
				}
				e.header.Set("Nats-Msg-Size", strconv.Itoa(len(e.data)))
				newcomer.receive(&natsgo.Msg{
					Subject: e.subject, Header: e.header,
					Reply: fmt.Sprintf("$JS.ACK.S.log.1.%d.%d.%d.0", next, newcomer.nth+1, e.at.UnixNano()),
				})
			}
		}
	}
	read(ds[2].Tag.(*emulate.Delivery).Seq) // m0 to m2
	for _, d := range ds[1:] {
		settle(t, sub, d, driver.Ack, 0)
	}
	settleUp()
	settleUp() // the first of which deleted what is gone
	inspect(t, c, "q")
	w.mu.Lock()
	end := w.at
	w.mu.Unlock()
	read(end)
	r.mu.Lock()
	defer r.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if newcomer.dead || r.load != nil || r.at != w.at {
		t.Fatalf("it is at %d, and not at %d", r.at, w.at)
	}
	if have, want := r.book.dump(), w.book.dump(); have != want {
		t.Errorf("it has\n%s\nnot\n%s", have, want)
	}
}

// slowURL leads to a broker that is some milliseconds away.
func slowURL(t *testing.T, broker string) string {
	u, err := url.Parse(broker)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	far := u.Host
	go func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			broker, err := net.Dial("tcp", far)
			if err != nil {
				near.Close()
				continue
			}
			go delay(broker, near)
			go delay(near, broker)
		}
	}()
	u.Host = ln.Addr().String()
	return u.String()
}

func delay(dst, src net.Conn) {
	defer dst.Close()
	buf := make([]byte, 1<<20)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return
		}
		time.Sleep(2 * time.Millisecond)
		if _, err := dst.Write(buf[:n]); err != nil {
			return
		}
	}
}

// TestSignsWhileSettling: whoever cuts the log short goes on giving signs of
// life. The broker is so far away by then that this takes several leases.
func TestSignsWhileSettling(t *testing.T) { withLeases(t, signsWhileSettling) }

func signsWhileSettling(t testing.TB, lease time.Duration) {
	link := testbroker.Proxy(t, testbroker.URL(t, "nats")+fmt.Sprint("&lease=", lease))
	s := openRaw(t, link.URL())
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1, SingleActiveConsumer: true}
	declare(t, c, q)
	const n = snapshotEvery + 100
	p := publisherOf(t, c)
	mustPublish(t, p, "q", numbered("m", 0, n+1)...)
	sub := subscribe(t, c, "q", 1)
	held := receive(t, sub, 1)[0] // so that what goes is behind something
	link.Delay(lease / 20)
	if removed, err := c.Purge(within(t), "q"); removed != n || err != nil {
		t.Fatal(removed, err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 30*lease)
	defer cancel()
	for {
		stream, err := s.js.Stream(ctx, queueOf(t, s, "q").stream)
		if err != nil {
			t.Fatal(err)
		}
		if stream.CachedInfo().State.Msgs < 100 {
			break
		}
		if err := wait(ctx, 5*time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("settled in %v, the lease being %v", time.Since(began), lease)
	settle(t, sub, held, driver.Ack, 0)
}

// TestSweepUnread: a process that has just begun to read a queue does not take
// it for empty.
func TestSweepUnread(t *testing.T) {
	url := testbroker.URL(t, "nats")
	c := open(t, url)
	q := routing.Queue{Name: "q", MaxPriority: 1, TTL: time.Hour}
	declare(t, c, q)
	mustPublish(t, publisherOf(t, c), "q", numbered("m", 0, 1000)...)
	s := openRaw(t, url)
	swept, err := s.Sweep(within(t), stored2queue(t, s, q), 10)
	if err != nil || swept.Empty || swept.Next.IsZero() {
		t.Errorf("%+v, %v", swept, err)
	}
}

// rollBack has a store lose its connection, and the queue's stream all that it
// had; n other messages are in it by the time the link is open again.
func rollBack(t *testing.T, s *store, link *testbroker.Link, direct *store, q routing.Queue, n int) {
	t.Helper()
	link.Refuse(true)
	link.Cut()
	for ctx := within(t); s.isLive(); {
		if err := wait(ctx, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	eq := stored2queue(t, direct, q)
	h := handleOf(eq)
	if err := direct.js.DeleteStream(within(t), h.stream); err != nil {
		t.Fatal(err)
	}
	if err := direct.CreateQueue(within(t), eq); err != nil {
		t.Fatal(err)
	}
	for range n {
		if _, err := direct.js.Publish(within(t), h.subject, []byte("n")); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRolledBack: a server that lost its last writes with its machine, and has
// given their sequences to other messages by the time the connection is back, is
// not believed to have what it had; nor is that written down.
func TestRolledBack(t *testing.T) {
	for _, settling := range []bool{false, true} {
		t.Run(fmt.Sprint("settling ", settling), func(t *testing.T) {
			url := testbroker.URL(t, "nats")
			link := testbroker.Proxy(t, url)
			s, direct := openRaw(t, link.URL()), openRaw(t, url)
			c, b := emulated(t, s), emulated(t, direct)
			q := routing.Queue{Name: "q", MaxPriority: 1}
			declare(t, b, q)
			mustPublish(t, publisherOf(t, b), "q", "m0", "m1")
			if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 2}) {
				t.Fatalf("%+v", info)
			}
			l := ledgerOf(t, s, q)
			rollBack(t, s, link, direct, q, 12)
			settled := make(chan error, 1)
			if settling {
				go func() { settled <- l.settleUp(within(t)) }()
			} else {
				settled <- nil
			}
			link.Refuse(false)
			if err := <-settled; err != nil {
				t.Error(err)
			}
			for _, c := range []driver.Conn{c, open(t, url)} {
				if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 12}) {
					t.Errorf("%+v", info)
				}
			}
		})
	}
}

// TestRefusedAfterRollBack: what is published as soon as the connection is back is
// not judged by what the stream was before.
func TestRefusedAfterRollBack(t *testing.T) {
	url := testbroker.URL(t, "nats")
	link := testbroker.Proxy(t, slowURL(t, url)) // a publish is answered before the stream is looked at
	s, direct := openRaw(t, link.URL()), openRaw(t, url)
	c, b := emulated(t, s), emulated(t, direct)
	q := routing.Queue{Name: "q", MaxLength: 2, Overflow: routing.RejectPublish}
	declare(t, b, q)
	p := publisherOf(t, c)
	mustPublish(t, p, "q", "m0")
	for range 5 {
		inspect(t, c, "q")
	}
	rollBack(t, s, link, direct, q, 2)
	link.Refuse(false)
	if _, err := s.session(within(t)); err != nil {
		t.Fatal(err)
	}
	if err := publish(t, p, "q", "m1")[0]; !errors.Is(err, driver.ErrRejected) {
		t.Errorf("a message that the queue does not have: %v", err)
	}
}

// TestDeletedByHand: whoever reads a queue anew after a message was deleted from
// its stream has the same book as those who have read the message.
func TestDeletedByHand(t *testing.T) {
	url := testbroker.URL(t, "nats")
	s := openRaw(t, url)
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	mustPublish(t, publisherOf(t, c), "q", "m0", "m1", "m2")
	inspect(t, c, "q")
	l := ledgerOf(t, s, q)
	if err := l.settleUp(within(t)); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	second := l.book.levels[0].fresh[1].seq
	l.mu.Unlock()
	for try := range 2 {
		if deleted, err := s.deleteMessages(within(t), l.h, []uint64{second}); err != nil || len(deleted) != 1-try {
			t.Fatal(deleted, err)
		}
	}
	late := open(t, url)
	for _, c := range []driver.Conn{c, late} {
		if info := inspect(t, c, "q"); info != (driver.QueueInfo{Ready: 3}) {
			t.Errorf("%+v", info)
		}
	}
	expect(t, subscribe(t, late, "q", 1), "m0", "m2")
	for _, c := range []driver.Conn{late, c} { // who has settled says so first
		if info := inspect(t, c, "q"); info != (driver.QueueInfo{Consumers: 1}) {
			t.Errorf("%+v", info)
		}
	}
}
