package nats

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"container/heap"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

// snapshot is a book as it was after a message of the stream, so that what came
// before can go. What a message says of itself is read from the stream again:
// here is what became of it.
type snapshot struct {
	At      uint64           `json:"at"`   // the last message in the book
	From    uint64           `json:"from"` // the first that is in it still
	Now     int64            `json:"now"`
	Used    bool             `json:"used,omitempty"`
	Idle    int64            `json:"idle,omitempty"`
	Readers []readerSnapshot `json:"readers,omitempty"`
	Turn    []int            `json:"turn,omitempty"` // places in Readers
	// Touched are sequence, failed attempts, times handed out, place of the
	// reader in Readers counted from 1, and when it is due.
	Touched [][5]int64     `json:"touched,omitempty"`
	Left    []leftSnapshot `json:"left,omitempty"`
	// Refused are the first message, the last, and the time of that.
	Refused   [][3]int64  `json:"refused,omitempty"`
	Forgotten uint64      `json:"forgotten,omitempty"` // refusals up to here may be missing
	Taken     uint64      `json:"taken,omitempty"`     // the last message that was not refused
	Gone      [][2]uint64 `json:"gone,omitempty"`      // from, to; where they are not yet deleted
}

type readerSnapshot struct {
	ID    string `json:"id"`
	Limit int    `json:"n"`
	MS    int64  `json:"ms"`
	Until int64  `json:"until"`
}

type leftSnapshot struct {
	Seq    uint64         `json:"seq"`
	Reason emulate.Reason `json:"reason"`
	Swept  int64          `json:"swept,omitempty"`
}

// headerFrom is the header of a snapshot's message that has its From too.
const headerFrom = "Polymq-from"

// maxSnapshot bounds what a snapshot unfolds to.
const maxSnapshot = 256 << 20

// snapshot is the book after the message at; what is in it stays the book's.
func (b *book) snapshot(at uint64) *snapshot {
	s := &snapshot{At: at, From: at + 1, Now: b.now, Used: b.used, Idle: b.idle, Forgotten: b.forgotten, Taken: b.taken}
	for _, r := range b.refused {
		s.Refused = append(s.Refused, [3]int64{int64(r.first), int64(r.last), r.at})
	}
	if first := b.first(); first > 0 {
		s.From = first
	}
	places := make(map[*reader]int64, len(b.readers))
	for i, r := range b.readers {
		places[r] = int64(i + 1)
		s.Readers = append(s.Readers, readerSnapshot{r.id, r.limit, wholeMS(r.lease), r.until})
	}
	for _, r := range b.turn {
		s.Turn = append(s.Turn, int(places[r]-1))
	}
	for _, e := range b.entries {
		if e.gen > 0 {
			s.Touched = append(s.Touched, [5]int64{int64(e.seq), int64(e.failed), int64(e.gen), places[e.reader], e.due})
		}
	}
	slices.SortFunc(s.Touched, func(x, y [5]int64) int { return cmp.Compare(x[0], y[0]) })
	for _, e := range b.left {
		s.Left = append(s.Left, leftSnapshot{e.seq, e.reason, e.swept})
	}
	slices.Sort(b.gone)
	for _, seq := range b.gone {
		if last := len(s.Gone) - 1; seq < s.From {
			continue
		} else if last >= 0 && s.Gone[last][1] >= seq-1 {
			s.Gone[last][1] = seq
		} else {
			s.Gone = append(s.Gone, [2]uint64{seq, seq})
		}
	}
	return s
}

func (s *snapshot) encode() ([]byte, error) {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if err := json.NewEncoder(z).Encode(s); err != nil {
		return nil, err
	}
	err := z.Close()
	return body.Bytes(), err
}

func decodeSnapshot(data []byte) (*snapshot, error) {
	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("nats: a queue's snapshot cannot be read: %w", err)
	}
	s := &snapshot{}
	if err := json.NewDecoder(io.LimitReader(z, maxSnapshot)).Decode(s); err != nil {
		return nil, fmt.Errorf("nats: a queue's snapshot cannot be read: %w", err)
	}
	for _, i := range s.Turn {
		if i < 0 || i >= len(s.Readers) {
			return nil, fmt.Errorf("nats: a queue's snapshot cannot be read: a reader %d", i)
		}
	}
	return s, nil
}

// loading is a book on its way out of a snapshot and the messages that are in
// the stream still.
type loading struct {
	*snapshot
	seq     uint64 // of the snapshot's own message
	book    *book
	touched map[uint64][5]int64
	left    map[uint64]leftSnapshot
}

func newLoading(q *emulate.Queue, s *snapshot, seq uint64) *loading {
	b := newBook(q)
	b.now, b.used, b.idle, b.forgotten, b.taken = s.Now, s.Used, s.Idle, s.Forgotten, s.Taken
	for _, r := range s.Refused {
		b.refused = append(b.refused, refusal{uint64(r[0]), uint64(r[1]), r[2]})
	}
	l := &loading{snapshot: s, seq: seq, book: b, touched: map[uint64][5]int64{}, left: map[uint64]leftSnapshot{}}
	for _, r := range s.Readers {
		b.readers = append(b.readers, &reader{id: r.ID, limit: r.Limit, lease: ms(r.MS), until: r.Until, holds: map[uint64]*entry{}})
	}
	for _, i := range s.Turn {
		b.turn = append(b.turn, b.readers[i])
	}
	for _, t := range s.Touched {
		l.touched[uint64(t[0])] = t
	}
	for _, x := range s.Left {
		l.left[x.Seq] = x
	}
	return l
}

// message enters one of the messages that the snapshot speaks of.
func (l *loading) message(seq uint64, at int64, priority, size int, ttl time.Duration) {
	b := l.book
	for _, run := range l.Gone {
		if run[0] <= seq && seq <= run[1] {
			b.gone = append(b.gone, seq)
			return
		}
	}
	e := &entry{seq: seq, level: min(priority, b.q.MaxPriority), size: size, stored: at, over: b.over(at, ttl)}
	b.entries[seq] = e
	t := l.touched[seq]
	e.failed, e.gen = int(t[1]), uint64(t[2])
	x, left := l.left[seq]
	switch {
	case left:
		e.reason, e.swept = x.Reason, x.Swept
	case 0 < t[3] && t[3] <= int64(len(b.readers)):
		e.reader = b.readers[t[3]-1]
		e.reader.holds[seq] = e
	case t[4] > 0:
		e.due = t[4]
		heap.Push(&b.delayed, e)
	default:
		b.enqueue(e)
	}
}

// done is the book, once all messages are in it.
func (l *loading) done() *book {
	for _, x := range l.Left {
		if e := l.book.entries[x.Seq]; e != nil {
			l.book.left = append(l.book.left, e)
		}
	}
	return l.book
}
