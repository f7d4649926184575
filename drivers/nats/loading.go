package nats

import (
	"container/heap"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

// loading is a book on its way: messages of the stream as they are read, until
// what a snapshot says of them makes them a book. Which one does not matter
// before, so a newer one that takes its place costs nothing.
type loading struct {
	q     *emulate.Queue
	until uint64   // the snapshot's last message, as far as is known
	found []*entry // in order
}

// message notes a message of the stream.
func (l *loading) message(seq uint64, at int64, priority, size int, ttl time.Duration) {
	l.found = append(l.found, newEntry(l.q, seq, at, priority, size, ttl))
}

// book is that of a snapshot all of whose messages were read; what else was, is
// gone.
func (l *loading) book(s *snapshot) *book {
	b := newBook(l.q)
	b.now, b.used, b.idle, b.forgotten, b.taken = s.Now, s.Used, s.Idle, s.Forgotten, s.Taken
	for _, r := range s.Refused {
		b.refused = append(b.refused, refusal{uint64(r[0]), uint64(r[1]), r[2]})
	}
	for _, p := range s.Purged {
		b.purged = append(b.purged, purged{p.Name, p.N, p.At})
	}
	for _, r := range s.Readers {
		b.readers = append(b.readers, &reader{id: r.ID, limit: r.Limit, lease: ms(r.MS), until: r.Until, holds: map[uint64]*entry{}})
	}
	for _, i := range s.Turn {
		b.turn = append(b.turn, b.readers[i])
	}
	touched := make(map[uint64][5]int64, len(s.Touched))
	for _, t := range s.Touched {
		touched[uint64(t[0])] = t
	}
	left := make(map[uint64]bool, len(s.Left))
	for _, x := range s.Left {
		left[x.Seq] = true
	}
	found := l.found
	s.live(func(seq uint64) {
		for len(found) > 0 && found[0].seq < seq {
			b.gone = append(b.gone, found[0].seq)
			found = found[1:]
		}
		var e *entry
		if len(found) > 0 && found[0].seq == seq {
			e, found = found[0], found[1:]
		} else { // deleted by somebody else, as whoever gets it finds out
			e = newEntry(l.q, seq, s.Now, 0, 0, 0)
		}
		b.entries[seq] = e
		t := touched[seq]
		e.failed, e.gen = int(t[1]), uint64(t[2])
		switch {
		case left[seq]:
		case 0 < t[3] && t[3] <= int64(len(b.readers)):
			e.reader = b.readers[t[3]-1]
			e.reader.holds[seq] = e
		case t[4] > 0:
			e.due = t[4]
			heap.Push(&b.delayed, e)
		default:
			b.enqueue(e)
		}
	})
	for _, e := range found {
		b.gone = append(b.gone, e.seq)
	}
	for _, x := range s.Left {
		if e := b.entries[x.Seq]; e != nil {
			e.reason, e.swept = x.Reason, x.Swept
			b.left = append(b.left, e)
		}
	}
	return b
}
