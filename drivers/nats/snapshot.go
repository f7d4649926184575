package nats

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/polymq/polymq/driver/emulate"
)

// snapshot is a book as it was after a message of the stream, so that what came
// before can go. What a message says of itself is read from the stream again:
// here is what became of it.
type snapshot struct {
	At      uint64           `json:"at"` // the last message in the book
	Now     int64            `json:"now"`
	Used    bool             `json:"used,omitempty"`
	Idle    int64            `json:"idle,omitempty"`
	Readers []readerSnapshot `json:"readers,omitempty"`
	Turn    []int            `json:"turn,omitempty"` // places in Readers
	// Touched are sequence, failed attempts, times handed out, place of the
	// reader in Readers counted from 1, and when it is due.
	Touched [][5]int64     `json:"touched,omitempty"`
	Left    []leftSnapshot `json:"left,omitempty"`
	// Live are the messages that are in the book, in runs without another
	// sequence between: how many sequences each begins after the end of the one
	// before, and how many it has.
	Live []uint64 `json:"live,omitempty"`
	// Refused are the first message, the last, and the time of that.
	Refused   [][3]int64 `json:"refused,omitempty"`
	Forgotten uint64     `json:"forgotten,omitempty"` // refusals up to here may be missing
	Taken     uint64     `json:"taken,omitempty"`     // the last message that was not refused
	// Purged are the latest purges.
	Purged []purgedSnapshot `json:"purged,omitempty"`
}

type purgedSnapshot struct {
	Name string `json:"by"`
	N    int    `json:"n"`
	At   int64  `json:"at"`
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

// maxSnapshot bounds what a snapshot unfolds to.
const maxSnapshot = 256 << 20

// snapshot is the book after the message at; what is in it stays the book's.
func (b *book) snapshot(at uint64) *snapshot {
	s := &snapshot{At: at, Now: b.now, Used: b.used, Idle: b.idle, Forgotten: b.forgotten, Taken: b.taken}
	for _, r := range b.refused {
		s.Refused = append(s.Refused, [3]int64{int64(r.first), int64(r.last), r.at})
	}
	for _, p := range b.purged {
		s.Purged = append(s.Purged, purgedSnapshot{p.name, p.n, p.at})
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
	var end uint64
	for _, seq := range slices.Sorted(maps.Keys(b.entries)) {
		if n := len(s.Live); n > 0 && seq == end {
			s.Live[n-1]++
		} else {
			s.Live = append(s.Live, seq-end, 1)
		}
		end = seq + 1
	}
	return s
}

// from is the first message that is in the book.
func (s *snapshot) from() uint64 {
	if len(s.Live) > 0 {
		return s.Live[0]
	}
	return s.At + 1
}

// live calls f for each message that is in the book, in order.
func (s *snapshot) live(f func(seq uint64)) {
	var seq uint64
	for run := range slices.Chunk(s.Live, 2) {
		seq += run[0]
		for range run[1] {
			f(seq)
			seq++
		}
	}
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
		return nil, unreadable(err)
	}
	s := &snapshot{}
	if err := json.NewDecoder(io.LimitReader(z, maxSnapshot)).Decode(s); err != nil {
		return nil, unreadable(err)
	}
	if s.At > 1<<62 {
		return nil, unreadable(fmt.Errorf("message %d", s.At))
	}
	for _, i := range s.Turn {
		if i < 0 || i >= len(s.Readers) {
			return nil, unreadable(fmt.Errorf("a reader %d", i))
		}
	}
	var end uint64
	for run := range slices.Chunk(s.Live, 2) {
		if len(run) < 2 || run[0] > s.At || run[1] > s.At || end+run[0]+run[1] > s.At+1 {
			return nil, unreadable(fmt.Errorf("messages %v after %d", run, end))
		}
		end += run[0] + run[1]
	}
	return s, nil
}

// unreadable is also what a snapshot of another version is.
func unreadable(err error) error {
	return fmt.Errorf("%w: a queue's snapshot cannot be read, by this version of polymq at least: %w", errors.ErrUnsupported, err)
}
