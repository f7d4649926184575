package nats

import (
	"encoding/json"
	"fmt"
	"time"
)

// deed is one change of a kept queue's book. Deeds lie in the queue's stream
// among its messages, several in one message, in the header headerDeeds.
type deed struct {
	Do string `json:"do"`
	By string `json:"by,omitempty"` // the reader; of a purge its own name
	N  int    `json:"n,omitempty"`  // a limit
	MS int64  `json:"ms,omitempty"` // a lease
	// List are deliveries: a sequence, how often it was handed out by then,
	// and a delay in milliseconds.
	List [][]int64 `json:"list,omitempty"`
}

// headerDeeds is the header of a message that holds deeds.
const headerDeeds = "Polymq-deeds"

// What deeds do.
const (
	doJoin  = "join"  // By reads, at most N at a time, and gives a sign within MS
	doAlive = "alive" // By is there
	doLimit = "limit" // By gives List back untouched, and holds N at most; 0: it has left, but for what it holds
	doLeave = "leave" // By gives List back as failed attempts, what else it holds untouched, and is gone
	doAck   = "ack"   // By is done with List
	doNack  = "nack"  // By gives List back as failed attempts
	doBack  = "back"  // By gives List back untouched
	doSweep = "sweep" // up to N of those that the queue gave up are moved, for MS
	doDrop  = "drop"  // List was moved
	doPurge = "purge" // what waits is removed, up to the one message in List
	doTouch = "touch" // the queue is used
	doTick  = "tick"  // nothing but the time of it
)

// maxListed is how many deliveries one deed names at most, and maxDeeds how
// many bytes of deeds go into one message.
const (
	maxListed = 500
	maxParted = 2500 // or where it leaves, which is one step
	maxDeeds  = 32 << 10
)

// result is what came of a deed.
type result struct {
	n    int      // purged
	took []*entry // swept
}

// deed brings a deed about. What does not fit any more is nothing.
func (b *book) deed(d *deed, at int64) (res result) {
	b.advance(at)
	r := b.reader(d.By)
	switch d.Do {
	case doJoin:
		if r == nil && d.By != "" {
			r = &reader{id: d.By, limit: d.N, lease: ms(d.MS), holds: map[uint64]*entry{}}
			r.until = b.now + int64(r.lease)
			b.readers = append(b.readers, r)
			b.turn = append(b.turn, r)
			b.used = true
		} else if r != nil { // a second try
			r.until = b.now + int64(r.lease)
		}
	case doAlive:
		if r != nil {
			r.until = b.now + int64(r.lease)
		}
	case doLimit:
		if r != nil && r.limit > 0 {
			b.backFrom(r, d.List, false)
			if r.limit = d.N; d.N == 0 {
				b.unused()
			}
			b.limit()
		}
	case doLeave:
		if r != nil {
			b.backFrom(r, d.List, true)
			for _, e := range r.holds {
				b.giveBack(e, false, 0)
			}
			b.strike(r)
			b.limit()
		}
	case doAck:
		for _, item := range d.List {
			if e := b.held(r, item); e != nil {
				delete(r.holds, e.seq)
				b.remove(e)
				b.run()
			}
		}
	case doNack:
		for _, item := range d.List {
			if e := b.held(r, item); e != nil {
				b.giveBack(e, true, delayOf(item))
				b.returned()
			}
		}
	case doBack:
		b.backFrom(r, d.List, false)
		b.limit()
	case doSweep:
		res.took = b.sweep(d.N, ms(d.MS))
	case doDrop:
		b.drop(d.List)
	case doPurge:
		res.n = b.purgeOnce(d.By, d.List)
	case doTouch:
		b.idle = b.now
	}
	b.run()
	return res
}

// held is the entry of a delivery that a reader holds.
func (b *book) held(r *reader, item []int64) *entry {
	if r == nil || len(item) < 2 {
		return nil
	}
	if e := r.holds[uint64(item[0])]; e != nil && e.gen == uint64(item[1]) {
		return e
	}
	return nil
}

// backFrom gives deliveries of a reader back together.
func (b *book) backFrom(r *reader, list [][]int64, attempt bool) {
	for _, item := range list {
		if e := b.held(r, item); e != nil {
			b.giveBack(e, attempt, 0)
		}
	}
}

// drop removes entries that the queue had given up.
func (b *book) drop(list [][]int64) {
	gone := make(map[uint64]bool, len(list))
	for _, item := range list {
		if len(item) > 0 {
			gone[uint64(item[0])] = true
		}
	}
	left := b.left[:0]
	for _, e := range b.left {
		if gone[e.seq] {
			b.remove(e)
		} else {
			left = append(left, e)
		}
	}
	clear(b.left[len(left):])
	b.left = left
}

func delayOf(item []int64) time.Duration {
	if len(item) < 3 || item[2] <= 0 {
		return 0
	}
	return ms(item[2])
}

func ms(n int64) time.Duration { return time.Duration(min(n, 1<<40)) * time.Millisecond }

// wholeMS rounds up.
func wholeMS(d time.Duration) int64 { return int64((d + time.Millisecond - 1) / time.Millisecond) }

func parseDeeds(s string) ([]deed, error) {
	var ds []deed
	if err := json.Unmarshal([]byte(s), &ds); err != nil {
		return nil, fmt.Errorf("nats: deeds that cannot be read: %w", err)
	}
	return ds, nil
}
