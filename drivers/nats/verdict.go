package nats

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// verdict is what a book that has come past a message knows of it.
type verdict int

const (
	wasTaken verdict = iota
	wasRefused
	isForgotten
)

func (b *book) verdict(seq uint64) verdict {
	i, refused := slices.BinarySearchFunc(b.refused, seq, func(r refusal, seq uint64) int { return cmp.Compare(r.last, seq) })
	switch {
	case refused || i < len(b.refused) && b.refused[i].first <= seq:
		return wasRefused
	case seq > b.forgotten || b.entries[seq] != nil:
		return wasTaken
	}
	return isForgotten
}

// waiting is a parcel whose message is stored; the book says whether the queue
// takes it.
type waiting struct {
	parcel *emulate.Parcel
	repeat bool // the message is that of an earlier try
}

// stands notes that a message is stored.
func (l *ledger) stands(seq uint64) {
	l.mu.Lock()
	l.seen = max(l.seen, seq)
	l.mu.Unlock()
}

// verdict waits for what the book says of a message that is stored.
func (l *ledger) verdict(seq uint64, parcel *emulate.Parcel, repeat bool) {
	l.mu.Lock()
	if l.err != nil {
		err := l.err
		l.mu.Unlock()
		l.s.publisher.suspect(parcel, err)
		return
	}
	l.seen = max(l.seen, seq)
	l.verdicts[seq] = append(l.verdicts[seq], waiting{parcel, repeat})
	if l.load == nil && l.book != nil && seq <= l.at && l.trail != nil && l.trail.live.Err() == nil {
		l.judge(seq) // else attach does, which finds out whether the stream is the book's
	}
	l.mu.Unlock()
}

// unconfirmed ends the wait of some for a book that is not there. The caller
// holds the mutex.
func (l *ledger) unconfirmed(err error, whose func(waiting) bool) {
	maps.DeleteFunc(l.verdicts, func(seq uint64, ws []waiting) bool {
		ws = slices.DeleteFunc(ws, func(w waiting) bool {
			if whose(w) {
				w.parcel.Done(err)
				return true
			}
			return false
		})
		l.verdicts[seq] = ws
		return len(ws) == 0
	})
}

// judge tells the outcome of those that wait for a message, which the book has
// seen. A message that was refused and is published again was taken for the
// first one by the server: it goes under another id. The caller holds the
// mutex.
func (l *ledger) judge(seq uint64) {
	ws, ok := l.verdicts[seq]
	if !ok {
		return
	}
	delete(l.verdicts, seq)
	v := l.book.verdict(seq)
	for _, w := range ws {
		switch {
		case v == wasTaken:
			w.parcel.Done(nil)
		case v == isForgotten: // long enough ago to be published again
			l.s.publisher.suspect(w.parcel, errForgotten)
		case w.repeat:
			w.parcel.DedupID += "~" + strconv.FormatUint(seq, 10)
			l.s.publisher.resend(w.parcel)
		default:
			w.parcel.Done(fmt.Errorf("%w: queue %q is full", driver.ErrRejected, l.q.Name))
		}
	}
}

// errForgotten is why the outcome of a publishing is unknown whose message this
// process read of too late.
var errForgotten = errors.New("nats: whether the queue took the message is not known any more")
