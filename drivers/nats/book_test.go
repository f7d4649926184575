package nats

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// line is one message of a stream.
type line struct {
	seq            uint64
	at             int64
	deeds          []deed // or a message:
	priority, size int
	ttl            time.Duration
}

func (b *book) line(l line) {
	if l.deeds == nil {
		b.message(l.seq, l.at, l.priority, l.size, l.ttl)
		return
	}
	for i := range l.deeds {
		b.deed(&l.deeds[i], l.at)
	}
}

// dump is all that a book is.
func (b *book) dump() string {
	var s strings.Builder
	fmt.Fprintln(&s, b.now, b.ready, b.bytes, b.used, b.idle)
	fmt.Fprintln(&s, b.refused, b.forgotten, b.taken, b.purged)
	for i := range b.levels {
		l := &b.levels[i]
		back := slices.Clone(l.back)
		slices.SortFunc(back, func(x, y *entry) int { return int(x.seq) - int(y.seq) })
		for _, e := range append(back, l.fresh[l.next:]...) {
			fmt.Fprintf(&s, "ready %d %+v\n", i, *e)
		}
	}
	delayed := slices.Clone(b.delayed)
	slices.SortFunc(delayed, func(x, y *entry) int { return int(x.seq) - int(y.seq) })
	for _, e := range delayed {
		fmt.Fprintf(&s, "delayed %+v\n", *e)
	}
	for _, e := range b.left {
		fmt.Fprintf(&s, "left %+v\n", *e)
	}
	for _, rs := range [][]*reader{b.readers, b.turn} {
		for _, r := range rs {
			fmt.Fprintln(&s, "reader", r.id, r.limit, r.lease, r.until)
			var held []uint64
			for seq, e := range r.holds {
				if e.reader != r {
					panic("held by another")
				}
				held = append(held, seq)
			}
			slices.Sort(held)
			for _, seq := range held {
				e := *r.holds[seq]
				e.reader = nil
				fmt.Fprintf(&s, "held %+v\n", e)
			}
		}
	}
	fmt.Fprintln(&s, b.refused, b.forgotten, b.taken, len(b.entries))
	return s.String()
}

// TestBookFromSnapshot: who begins with any snapshot comes to the same book as
// who read all of the stream, though what the snapshot made superfluous is
// deleted.
func TestBookFromSnapshot(t *testing.T) {
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 1))
		q := &emulate.Queue{Queue: routing.Queue{
			MaxPriority: r.IntN(3), MaxLength: r.IntN(6), MaxBytes: int64(r.IntN(2) * 40),
			SingleActiveConsumer: r.IntN(2) == 0, TTL: time.Duration(r.IntN(2)*20) * time.Millisecond,
		}}
		if r.IntN(2) == 0 {
			q.Overflow = routing.RejectPublish
		}
		if r.IntN(2) == 0 {
			q.DeadLetterExchange = "dlx"
		}
		full := newBook(q)
		var stream []line
		at := int64(0)
		did := map[string]int{}
		var snap *snapshot
		for seq := uint64(1); seq < 150; seq++ {
			at += int64(r.IntN(5)) * int64(time.Millisecond)
			l := line{seq: seq, at: at}
			if r.IntN(2) == 0 {
				l.priority, l.size, l.ttl = r.IntN(4), r.IntN(20), time.Duration(r.IntN(3)*10)*time.Millisecond
				did["message"]++
			} else {
				for range 1 + r.IntN(2) {
					d := randomDeed(r, full)
					did[d.Do]++
					l.deeds = append(l.deeds, d)
				}
			}
			stream = append(stream, l)
			full.line(l)
			if r.IntN(40) == 0 {
				body, err := full.snapshot(seq).encode()
				if err != nil {
					t.Fatal(err)
				}
				if snap, err = decodeSnapshot(body); err != nil {
					t.Fatal(err)
				}
				stream = slices.DeleteFunc(stream, func(l line) bool {
					return l.deeds != nil || l.seq < snap.from()
				})
			}
		}
		if snap == nil {
			continue
		}
		load := &loading{q: q, until: snap.At}
		for _, l := range stream {
			if l.seq <= snap.At {
				load.message(l.seq, l.at, l.priority, l.size, l.ttl)
			}
		}
		other := load.book(snap)
		for _, l := range stream {
			if l.seq > snap.At {
				other.line(l)
			}
		}
		if want, got := full.dump(), other.dump(); want != got {
			t.Fatalf("seed %d: the snapshot at %d leads to\n%s\nnot to\n%s", seed, snap.At, got, want)
		}
		for _, do := range []string{"message", doJoin, doAck, doNack} {
			if did[do] == 0 {
				t.Fatalf("seed %d did no %s", seed, do)
			}
		}
	}
}

func randomDeed(r *rand.Rand, b *book) deed {
	d := deed{By: fmt.Sprint("r", r.IntN(3)), N: r.IntN(5), MS: 30}
	d.Do = []string{doJoin, doJoin, doAlive, doLimit, doLeave, doAck, doAck, doNack, doNack, doBack, doSweep, doDrop, doPurge, doTouch, doTick}[r.IntN(15)]
	if reader := b.reader(d.By); reader != nil {
		for seq, e := range b.entries {
			if (e.reader == reader || d.Do == doDrop) && r.IntN(2) == 0 {
				d.List = append(d.List, []int64{int64(seq), int64(e.gen), int64(r.IntN(2) * 5)})
			}
		}
	}
	if d.Do == doPurge {
		d.List = [][]int64{{int64(r.Uint64N(b.taken + 2))}}
		if r.IntN(4) > 0 {
			d.Do = doTick
		}
	}
	return d
}
