package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"
)

// The newest snapshot is the one message of its subject. What does not fit into
// that lies before it among the deeds, in parts, each of which names the
// message of the one before; they go with the deeds, at the next snapshot.
const (
	headerAt     = "Polymq-at"
	headerFrom   = "Polymq-from"
	headerBefore = "Polymq-before" // 0: the first
)

// mark is the message of the newest snapshot.
type mark struct {
	seq    uint64
	at     uint64 // the snapshot's last message
	from   uint64 // the first in it
	before uint64 // the message of the part before; 0: there is none
	data   []byte
}

// newest is nil where there is no snapshot.
func (l *ledger) newest(ctx context.Context) (*mark, error) {
	e, ok, err := l.get(ctx, getRequest{LastFor: l.h.prefix + ".s"})
	if err != nil || !ok {
		return nil, err
	}
	m := &mark{seq: e.seq, data: e.data}
	var err1, err2, err3 error
	m.at, err1 = strconv.ParseUint(e.header.Get(headerAt), 10, 64)
	m.from, err2 = strconv.ParseUint(e.header.Get(headerFrom), 10, 64)
	m.before, err3 = strconv.ParseUint(e.header.Get(headerBefore), 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, unreadable(err)
	}
	if m.at >= m.seq || m.before >= m.seq || m.from > m.at+1 {
		return nil, unreadable(fmt.Errorf("message %d speaks of %d to %d", m.seq, m.from, m.at))
	}
	return m, nil
}

// readSnapshot reads the newest snapshot, also if it is replaced meanwhile.
func (l *ledger) readSnapshot(ctx context.Context) (*mark, *snapshot, error) {
	for last := uint64(0); ; {
		m, err := l.newest(ctx)
		if err != nil || m == nil {
			return nil, nil, err
		}
		parts := [][]byte{m.data}
		before, ok := m.before, true
		for before > 0 && ok {
			var e stored
			if e, ok, err = l.get(ctx, getRequest{Seq: before}); err != nil {
				return nil, nil, err
			}
			next, err := strconv.ParseUint(e.header.Get(headerBefore), 10, 64)
			if ok = ok && err == nil && next < before; ok {
				parts = append(parts, e.data)
				before = next
			}
		}
		if ok {
			slices.Reverse(parts)
			snap, err := decodeSnapshot(slices.Concat(parts...))
			if err == nil && snap.At != m.at {
				err = unreadable(fmt.Errorf("it is at %d, not at %d", snap.At, m.at))
			}
			return m, snap, err
		}
		if m.seq == last {
			return nil, nil, unreadable(fmt.Errorf("of message %d a part is missing, at %d", m.seq, before))
		}
		last = m.seq
	}
}

// get reads one message from the stream's leader, which is a sign of the
// server's life.
func (l *ledger) get(ctx context.Context, req getRequest) (e stored, ok bool, err error) {
	err = l.s.once(ctx, func(ctx context.Context) (err error) {
		e, ok, err = l.s.leaderGet(ctx, l.h.stream, req)
		return err
	})
	if err == nil {
		l.mu.Lock()
		if l.trail != nil {
			l.trail.heard = time.Now()
		}
		l.mu.Unlock()
	}
	return e, ok, err
}

// settleUp writes the book down and deletes from the stream what led to it:
// deeds, and messages that are gone. Whoever reads the stream begins with what
// is written down, so nothing is deleted before. What is written down never
// gets older: it is on condition that the snapshot before is the one that this
// book has seen. All of it belongs to one connection: a server that was started
// again may have lost its last writes, and have given their sequences to
// others.
func (l *ledger) settleUp(ctx context.Context) error {
	live, err := l.s.session(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(live, cancel)()
	l.mu.Lock()
	b := l.book
	if b == nil || l.load != nil || l.trail == nil || l.trail.live != live { // another trail begins
		l.mu.Unlock()
		return nil
	}
	snap, before, gone := b.snapshot(l.at), l.snapshot, b.gone
	b.gone = nil // of what another deletes, b hears by its snapshot
	l.mu.Unlock()
	written, err := l.write(ctx, snap, before)
	if written {
		gone, err = l.clear(ctx, snap, gone)
	}
	if err != nil && live.Err() != nil {
		err = fmt.Errorf("%w: %w", natsgo.ErrDisconnected, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.book == b {
		b.gone = append(b.gone, gone...)
	}
	if soon := time.Now().Add(100 * time.Millisecond); err == nil && l.snapped.Before(soon) {
		l.snapped = soon // this snapshot, or that of another who was faster, is heard of by then
	}
	return err
}

// write stores a snapshot, unless there is another than the one before.
func (l *ledger) write(ctx context.Context, snap *snapshot, before uint64) (written bool, err error) {
	body, err := snap.encode()
	if err != nil {
		return false, err
	}
	part := uint64(0)
	for most := l.s.roomForBody(); len(body) > most; body = body[most:] {
		m := &natsgo.Msg{Subject: l.h.prefix + ".e", Data: body[:most], Header: natsgo.Header{headerBefore: {strconv.FormatUint(part, 10)}}}
		if part, err = l.publish(ctx, m); err != nil {
			return false, err
		}
	}
	_, err = l.publish(ctx, &natsgo.Msg{Subject: l.h.prefix + ".s", Data: body, Header: natsgo.Header{
		"Nats-Rollup":                         {"sub"},
		"Nats-Expected-Last-Subject-Sequence": {strconv.FormatUint(before, 10)},
		headerAt:                              {strconv.FormatUint(snap.At, 10)},
		headerFrom:                            {strconv.FormatUint(snap.from(), 10)},
		headerBefore:                          {strconv.FormatUint(part, 10)},
	}})
	if hasCode(err, codeWrongLastSequence, codeBusy) {
		if m, err := l.newest(ctx); err == nil && m == nil {
			signal(l.relink) // somebody deleted it
		}
		return false, nil
	}
	return err == nil, err
}

func (l *ledger) publish(ctx context.Context, m *natsgo.Msg) (seq uint64, err error) {
	err = l.s.once(ctx, func(ctx context.Context) error {
		seq, err = l.s.publishOne(ctx, m)
		return err
	})
	return seq, err
}

// clear deletes what a snapshot has made superfluous, and returns what is left
// of it.
func (l *ledger) clear(ctx context.Context, snap *snapshot, gone []uint64) (left []uint64, err error) {
	err = l.s.once(ctx, func(ctx context.Context) error {
		if err := l.s.purgeBefore(ctx, l.h.stream, l.h.prefix+".e", snap.At+1); err != nil {
			return err
		}
		return l.s.purgeBefore(ctx, l.h.stream, l.h.subject, snap.from())
	})
	if err != nil {
		return gone, err
	}
	gone = slices.DeleteFunc(gone, func(seq uint64) bool { return seq < snap.from() })
	for len(gone) > 0 {
		n := min(len(gone), atOnce)
		err := l.s.once(ctx, func(ctx context.Context) error {
			_, err := l.s.deleteMessages(ctx, l.h, gone[:n])
			return err
		})
		if err != nil {
			return gone, err
		}
		gone = gone[n:]
	}
	return nil, nil
}

// purgeBefore removes a subject's messages before a sequence.
func (s *store) purgeBefore(ctx context.Context, stream, subject string, seq uint64) error {
	if seq <= 1 {
		return nil // 2.12.9, 2.14.1 and older remove all of them
	}
	var reply struct{}
	return s.call(ctx, "$JS.API.STREAM.PURGE."+stream, struct {
		Filter string `json:"filter"`
		Seq    uint64 `json:"seq"`
	}{subject, seq}, &reply)
}

// deleteMessages removes messages of a queue, asking for all of them at once,
// and returns those that were there.
func (s *store) deleteMessages(ctx context.Context, h *handle, seqs []uint64) (deleted []uint64, err error) {
	inbox := s.nc.NewInbox() + "."
	sub, err := s.nc.SubscribeSync(inbox + "*")
	if err != nil {
		return nil, err
	}
	defer sub.Unsubscribe()
	s.asking(ctx, "$JS.API.STREAM.MSG.DELETE."+h.stream)
	for _, seq := range seqs {
		req := fmt.Appendf(nil, `{"seq":%d,"no_erase":true}`, seq)
		if err := s.nc.PublishRequest("$JS.API.STREAM.MSG.DELETE."+h.stream, inbox+strconv.FormatUint(seq, 10), req); err != nil {
			return nil, err
		}
	}
	for range seqs {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil {
			return deleted, err
		}
		if m.Header.Get("Status") == "503" {
			return deleted, natsgo.ErrNoResponders
		}
		var reply struct {
			Error *apiError `json:"error"`
		}
		seq, err := strconv.ParseUint(m.Subject[len(inbox):], 10, 64)
		if err == nil {
			err = json.Unmarshal(m.Data, &reply)
		}
		switch {
		case err != nil:
			return deleted, fmt.Errorf("nats: deleting from %s: %w", h.stream, err)
		case reply.Error == nil:
			deleted = append(deleted, seq)
		case !isMessageGone(reply.Error):
			return deleted, reply.Error
		}
	}
	return deleted, nil
}
