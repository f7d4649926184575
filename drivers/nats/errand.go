package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	crand "crypto/rand"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
)

// errand is a deed on its way into the queue's stream.
type errand struct {
	deed   deed
	member *member                 // whose sign of life it is
	look   func(b *book, r result) // sees the book right after it; under the mutex
	done   chan error              // cap 1; nil: nobody waits

	at  time.Time // when it was first sent
	seq uint64    // of its message; 0: unknown
}

func (e *errand) finish(err error) {
	select {
	case e.done <- err:
	default: // nobody waits, or not any more
	}
}

// refuse ends the wait for an errand that was for what its caller would see,
// and reports whether it was.
func (e *errand) refuse(err error) bool {
	if e.look == nil {
		return false
	}
	e.look = nil
	e.finish(err)
	return true
}

// seen is called when the deed is in the book.
func (e *errand) seen(b *book, r result) {
	if m := e.member; m != nil && b.reader(e.deed.By) != nil && e.deed.By == m.id {
		m.until = e.at.Add(m.lease())
	}
	if e.look != nil {
		e.look(b, r)
	}
}

// give puts an errand in line. Deliveries that a reader settles alike one after
// the other go together. The caller holds the mutex.
func (l *ledger) give(e *errand) {
	if l.err != nil {
		e.finish(l.err)
		return
	}
	if n := len(l.errands); n > 0 && e.done == nil && len(e.deed.List) > 0 {
		if last := l.errands[n-1]; last.done == nil && last.deed.Do == e.deed.Do && last.deed.By == e.deed.By && len(last.deed.List)+len(e.deed.List) <= maxListed {
			last.deed.List = append(last.deed.List, e.deed.List...)
			return
		}
	}
	l.errands = append(l.errands, e)
	signal(l.post)
}

// do sends a deed and waits until it is in the book. What it does it does at
// least once; after the end of ctx perhaps, but nothing is looked at then.
func (l *ledger) do(ctx context.Context, d deed, m *member, look func(*book, result)) error {
	for {
		e := &errand{deed: d, member: m, look: look, done: make(chan error, 1)}
		l.mu.Lock()
		l.give(e)
		l.mu.Unlock()
		select {
		case err := <-e.done:
			if errors.Is(err, errSkipped) {
				continue
			}
			return err
		case <-ctx.Done():
			return l.forsake(e, ctx.Err())
		}
	}
}

// forsake ends the wait for an errand. One that was for what its caller would
// see is not sent any more.
func (l *ledger) forsake(e *errand, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trouble != nil {
		err = fmt.Errorf("%w: %w", err, l.trouble)
	}
	if e.refuse(err) {
		l.errands = slices.DeleteFunc(l.errands, func(o *errand) bool { return o == e })
	}
	return err
}

// send is the goroutine that sends errands: one message after the other, each
// with all that is in line by then. Nothing is written to a stream that goes by
// other rules.
func (l *ledger) send() {
	select {
	case <-l.ctx.Done():
		return
	case <-l.begun:
	}
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-l.post:
		}
		for {
			id, batch := l.batch()
			if len(batch) == 0 {
				break
			}
			if l.sendBatch(id, batch) != nil {
				return
			}
		}
	}
}

// batch takes from the line what fits into one message, and gives that an id.
func (l *ledger) batch() (id string, batch []*errand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, size := 0, 0
	for n < len(l.errands) {
		size += 100 + 48*len(l.errands[n].deed.List)
		if n > 0 && size > maxDeeds {
			break
		}
		n++
	}
	if n == 0 {
		return "", nil
	}
	id, batch = crand.Text(), l.errands[:n:n]
	l.errands = slices.Clone(l.errands[n:])
	l.sent[id] = batch
	now := time.Now()
	for _, e := range batch {
		e.at = now
	}
	return id, batch
}

// sendBatch sends until the server has stored it; under one id, so that it does
// so once. It gives up with the ledger only.
func (l *ledger) sendBatch(id string, batch []*errand) error {
	deeds := make([]deed, len(batch))
	for i, e := range batch {
		deeds[i] = e.deed
	}
	body, err := json.Marshal(deeds)
	if err != nil {
		return err // it has no such types
	}
	m := &natsgo.Msg{Subject: l.h.prefix + ".e", Header: natsgo.Header{headerDeeds: {string(body)}, headerMsgID: {id}}}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		var seq uint64
		err := l.s.once(l.ctx, func(ctx context.Context) (err error) {
			seq, err = l.s.publishOne(ctx, m)
			return err
		})
		if err == nil {
			l.stored(id, seq)
			return nil
		}
		if l.ctx.Err() != nil {
			return l.ctx.Err()
		}
		if isStreamGone(err) || errors.Is(err, natsgo.ErrNoResponders) {
			signal(l.relink) // attach finds out whether it is there
		} else if !passing(err) && pause >= time.Second && !errors.Is(err, driver.ErrClosed) {
			l.s.cfg.Logger.Warn("nats: what subscribers did cannot be stored; trying again", "queue", l.q.Name, "error", err)
		}
		if wait(l.ctx, pause) != nil {
			return l.ctx.Err()
		}
	}
}

// stored notes where a batch is in the stream.
func (l *ledger) stored(id string, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen = max(l.seen, seq)
	batch, ok := l.sent[id]
	if !ok {
		return // in the book by now
	}
	if l.load == nil && l.book != nil && seq <= l.at { // the book was loaded past it
		delete(l.sent, id)
		for _, e := range batch {
			e.finish(errSkipped)
		}
		return
	}
	batch[0].seq = seq
}
