package nats

import (
	"context"
	"testing"
	"time"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestForsaken: what an errand would have shown nobody looks at after its
// caller gave up.
func TestForsaken(t *testing.T) {
	url := testbroker.URL(t, "nats")
	link := testbroker.Proxy(t, url)
	s := openRaw(t, link.URL())
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, c, q)
	inspect(t, c, "q")
	l, err := s.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	link.Stall(true)
	looked := 0
	for range 2 { // one on its way, one in line
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if err := l.do(ctx, deed{Do: doTick}, nil, func(*book, result) { looked++ }); err == nil {
			t.Fatal("a tick over a link that is stalled")
		}
	}
	link.Stall(false)
	inspect(t, c, "q")
	if looked > 0 {
		t.Error("nobody waited, and it was looked at")
	}
}

// TestLatePurge: a purge whose caller gave up takes nothing that was confirmed
// since.
func TestLatePurge(t *testing.T) {
	url := testbroker.URL(t, "nats")
	link := testbroker.Proxy(t, url)
	s := openRaw(t, link.URL())
	a, b := emulated(t, s), open(t, url)
	q := routing.Queue{Name: "q", MaxPriority: 1}
	declare(t, b, q)
	p := publisherOf(t, b)
	mustPublish(t, p, "q", "m0", "m1")
	inspect(t, a, "q")
	l, err := s.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock() // nothing is sent, and the trail is not read
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	purged := make(chan error, 1)
	go func() {
		_, err := a.Purge(ctx, "q")
		purged <- err
	}()
	<-ctx.Done()
	mustPublish(t, p, "q", "m2")
	link.Stall(true) // nor answered before the call has ended
	l.mu.Unlock()
	if err := <-purged; err == nil {
		t.Fatal("a purge that could not be")
	}
	link.Stall(false)
	inspect(t, a, "q")
	info := inspect(t, b, "q")
	if info.Ready == 0 {
		t.Errorf("%+v", info)
	}
}

// TestPurgeNamesTheLast: one that comes about late does neither.
func TestPurgeNamesTheLast(t *testing.T) {
	b := newBook(&emulate.Queue{Queue: routing.Queue{MaxPriority: 1}})
	for seq := uint64(1); seq <= 6; seq++ { // 1 to 3 of level 1
		b.message(seq, 0, 1-int(seq)/4, 10, 0)
	}
	b.deed(&deed{Do: doJoin, By: "r", N: 2, MS: 1000}, 0)
	b.deed(&deed{Do: doNack, By: "r", List: [][]int64{{1, 1, 500}, {2, 1, 0}}}, 0) // 2 and 3 are held now
	b.deed(&deed{Do: doLimit, By: "r", List: [][]int64{{2, 2}}}, 0)                // 2 waits
	late := &deed{Do: doPurge, By: "late", List: [][]int64{{4}}}
	if res := b.deed(late, 0); res.n != 3 || b.ready != 2 || b.bytes != 20 || len(b.delayed) != 0 || b.unsettled() != 1 {
		t.Errorf("%d purged, left:\n%s", res.n, b.dump())
	}
	if e := b.dequeue(); e.seq != 5 {
		t.Errorf("%d is next", e.seq)
	}
}

// TestPurgeSentAgain: who missed what came of a purge hears it when it is sent
// again, also from a book made of a snapshot, and nothing more is purged.
func TestPurgeSentAgain(t *testing.T) {
	b := newBook(&emulate.Queue{})
	for seq := uint64(1); seq <= 3; seq++ {
		b.message(seq, 0, 0, 10, 0)
	}
	d := &deed{Do: doPurge, By: "p", List: [][]int64{{2}}}
	b.deed(d, 0)
	data, err := b.snapshot(4).encode()
	if err != nil {
		t.Fatal(err)
	}
	snap, err := decodeSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	l := &loading{q: b.q, until: 4}
	l.message(3, 0, 0, 10, 0)
	for name, b := range map[string]*book{"the same book": b, "a loaded one": l.book(snap)} {
		if res := b.deed(d, 0); res.n != 2 || b.ready != 1 {
			t.Errorf("%s: %d purged, %d ready", name, res.n, b.ready)
		}
		b.deed(&deed{Do: doTick}, purgedTime+1)
		if len(b.purged) > 0 {
			t.Errorf("%s: the purge is never forgotten", name)
		}
	}
}
