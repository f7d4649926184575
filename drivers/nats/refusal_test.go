package nats

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestVerdicts: a book says what became of a message for as long as it can.
func TestVerdicts(t *testing.T) {
	b := newBook(&emulate.Queue{Queue: routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish}})
	at := int64(0)
	b.deed(&deed{Do: doJoin, By: "r", MS: 1 << 40}, at)
	for seq := uint64(2); seq <= 6; seq++ { // the first is taken
		b.message(seq, at, 0, 1, 0)
	}
	b.purge(6)
	b.message(8, at, 0, 1, 0)
	b.message(9, at, 0, 1, 0)
	if len(b.refused) != 2 {
		t.Errorf("%d runs of refusals", len(b.refused))
	}
	expect := func(when string, want ...verdict) {
		t.Helper()
		loaded := (&loading{q: b.q}).book(b.snapshot(10))
		for i, seq := range []uint64{2, 3, 6, 8, 9} {
			if v := b.verdict(seq); v != want[i] {
				t.Errorf("%s: of %d: %v, not %v", when, seq, v, want[i])
			}
			if v := loaded.verdict(seq); v != want[i] {
				t.Errorf("%s, from the snapshot: of %d: %v, not %v", when, seq, v, want[i])
			}
		}
	}
	expect("at once", wasTaken, wasRefused, wasRefused, wasTaken, wasRefused)
	b.deed(&deed{Do: doTick}, at+refusalTime+1)
	expect("late", isForgotten, isForgotten, isForgotten, wasTaken, isForgotten)
	b.purge(9)
	b.message(12, b.now, 0, 1, 0)
	b.purge(12)
	if v := b.verdict(12); v != wasTaken {
		t.Errorf("of one that was taken since: %v", v)
	}
}

// TestRefusalsBounded: of a queue that refuses every other message.
func TestRefusalsBounded(t *testing.T) {
	b := newBook(&emulate.Queue{Queue: routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish}})
	last := uint64(4 * maxRefusals)
	for seq := uint64(1); seq < last; seq += 2 {
		b.message(seq, int64(seq), 0, 1, 0)
		b.message(seq+1, int64(seq), 0, 1, 0)
		b.purge(seq)
	}
	if len(b.refused) != maxRefusals || b.verdict(2) != isForgotten || b.verdict(last) != wasRefused || b.verdict(last-1) != wasTaken {
		t.Errorf("%d refusals; %v, %v, %v", len(b.refused), b.verdict(2), b.verdict(last), b.verdict(last-1))
	}
}

// TestRefusalForgotten: a publisher that learns of its message only when nobody
// knows any more whether the full queue took it is not told that it did.
func TestRefusalForgotten(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxLength: 1, Overflow: routing.RejectPublish}
	declare(t, c, q)
	p := publisherOf(t, c)
	mustPublish(t, p, "q", "m0")
	l, err := s.ledger(stored2queue(t, s, q))
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	l.trail.dead = true // as if the process was paused
	l.mu.Unlock()
	o := &outcome{left: 1, done: make(chan struct{})}
	pub := &driver.Publishing{Message: &driver.Message{Key: "q", Body: []byte("x")}, ID: "x", Owner: o}
	ctx := within(t)
	p.Publish(ctx, []*driver.Publishing{pub}, true)
	var seq uint64
	for seq == 0 && wait(ctx, time.Millisecond) == nil {
		l.mu.Lock()
		for s := range l.verdicts {
			seq = s
		}
		l.mu.Unlock()
	}
	// Meanwhile two minutes pass for the others.
	l.mu.Lock()
	b := l.book
	b.message(seq, b.now, 0, 1, 0)
	b.deed(&deed{Do: doTick}, b.now+int64(2*time.Minute))
	l.unlive()
	l.become((&loading{q: l.q}).book(b.snapshot(seq+1)), seq+1)
	l.mu.Unlock()
	if err := c.Close(ctx); err != nil { // and the retry's attempts end
		t.Fatal(err)
	}
	<-o.done
	if !errors.Is(pub.Err(), driver.ErrUnconfirmed) {
		t.Errorf("outcome of a message that was refused: %v", pub.Err())
	}
}

// TestVerdictOnDeleted: a publish is resolved also where somebody deletes its
// message from the stream before this process has read it.
func TestVerdictOnDeleted(t *testing.T) {
	s := openRaw(t, testbroker.URL(t, "nats"))
	c := emulated(t, s)
	q := routing.Queue{Name: "q", MaxLength: 2, Overflow: routing.RejectPublish}
	declare(t, c, q)
	p := publisherOf(t, c)
	mustPublish(t, p, "q", "m0")
	l := ledgerOf(t, s, q)
	l.mu.Lock()
	l.trail.dead = true // slow
	l.mu.Unlock()
	o := &outcome{left: 1, done: make(chan struct{})}
	ctx := within(t)
	p.Publish(ctx, []*driver.Publishing{{Message: &driver.Message{Key: "q", Body: []byte("x")}, ID: "x", Owner: o}}, true)
	var seqs []uint64
	for len(seqs) == 0 && wait(ctx, time.Millisecond) == nil {
		l.mu.Lock()
		seqs = slices.Collect(maps.Keys(l.verdicts))
		l.mu.Unlock()
	}
	if _, err := s.deleteMessages(ctx, l.h, seqs); err != nil {
		t.Fatal(err)
	}
	signal(l.relink)
	inspect(t, c, "q") // a message behind it
	select {
	case <-o.done:
	case <-ctx.Done():
		t.Error("it has no outcome")
	}
}
