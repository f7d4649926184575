package nats

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	crand "crypto/rand"

	natsgo "github.com/nats-io/nats.go"
)

// trail is one reading of a queue's stream into its book, by a consumer that
// the server forgets when nobody listens any more. It sends nothing twice: the
// trail is dead as soon as something was lost on the way, before the book goes
// on without it.
type trail struct {
	l     *ledger
	live  context.Context // the connection's
	sub   *natsgo.Subscription
	began time.Time

	// Guarded by the ledger's mutex.
	dead  bool
	heard time.Time // of the server
	nth   uint64    // how many messages came
}

const trailHeartbeat = 2 * time.Second

// attach begins to read where the book ends. It begins with the snapshot where
// the stream has forgotten what comes next, where there is no book yet, and
// where the stream may not be what the book was made of: a server that lost its
// last writes, and has given their sequences to others.
func (l *ledger) attach(ctx context.Context) error {
	l.detach()
	l.mu.Lock()
	err, seen := l.unread, l.seen
	if time.Since(l.unreadAt) > time.Second {
		err = nil
	}
	l.mu.Unlock()
	if err != nil {
		return err
	}
	live, err := l.s.session(ctx)
	if err != nil {
		return err
	}
	sent := time.Now()
	stream, err := l.s.js.Stream(ctx, l.h.stream)
	if err != nil {
		return err
	}
	info := stream.CachedInfo()
	l.s.clock.observe(sent, time.Now(), info.TimeStamp)
	if have := info.Config.Metadata[metaBook]; have != bookRules {
		return fmt.Errorf("%w: stream %s goes by rules %q, of another version of polymq: this one knows %s; update it", errors.ErrUnsupported, l.h.stream, have, bookRules)
	}
	select {
	case <-l.begun:
	default:
		close(l.begun)
	}
	l.mu.Lock()
	lasting, stamp, had := l.lasting, l.stamp, l.snapshot
	l.mu.Unlock()
	var last stored
	var there bool
	if lasting > 0 {
		if last, there, err = l.get(ctx, getRequest{Seq: lasting}); err != nil {
			return err
		}
	}
	same := there && last.at.UnixNano() == stamp
	m, err := l.newest(ctx) // after it: where that is deleted, there is a newer one
	if err != nil {
		return err
	}
	if m == nil && info.State.FirstSeq > 1 && (had > 0 || !same) {
		// Somebody has deleted the beginning, and what is left does not say what
		// others know of it: all begin anew.
		if _, err := l.write(ctx, newBook(l.q).snapshot(0), 0); err != nil {
			return err
		}
		if m, err = l.newest(ctx); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.created = info.Created.UnixNano()
	l.caught = false
	from := l.at + 1
	switch {
	case same && (m == nil && had == 0 || m != nil && m.at <= l.at && (m.at > 0 || m.seq == had)):
	case m != nil:
		l.unlive()
		l.load = &loading{q: l.q, until: m.at}
		l.at, l.lasting, l.safe, from = 0, 0, 0, m.from
	default:
		l.unlive()
		l.snapshot, l.safe, from = 0, 0, 1
		l.become(newBook(l.q), 0)
	}
	if !same || seen > info.State.LastSeq { // what the server forgot does not come any more
		l.seen = min(l.seen, info.State.LastSeq)
		l.miss(info.State.LastSeq)
	}
	t := &trail{l: l, live: live, began: time.Now(), heard: time.Now()}
	l.trail = t
	var open []waiting
	for seq, ws := range l.verdicts {
		switch {
		case seq > info.State.LastSeq || there && !same:
			open = append(open, ws...)
			delete(l.verdicts, seq)
		case l.load == nil && seq <= l.at:
			l.judge(seq)
		}
	}
	l.mu.Unlock()
	for _, w := range open { // what they waited for is not there
		l.s.publisher.suspect(w.parcel, natsgo.ErrTimeout)
	}
	inbox := l.s.nc.NewInbox()
	if t.sub, err = l.s.nc.Subscribe(inbox, t.receive); err != nil {
		return err
	}
	if err := t.sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	name := "log-" + crand.Text()
	return l.s.call(ctx, "$JS.API.CONSUMER.CREATE."+l.h.stream+"."+name, map[string]any{
		"stream_name": l.h.stream,
		"config": map[string]any{
			"name": name, "deliver_subject": inbox, "ack_policy": "none", "replay_policy": "instant",
			"deliver_policy": "by_start_sequence", "opt_start_seq": from, "max_deliver": 1,
			"headers_only": true, "flow_control": true, "idle_heartbeat": trailHeartbeat,
			"inactive_threshold": 10 * time.Second, "num_replicas": 1, "mem_storage": true,
		},
		"action": "create",
	}, &struct{}{})
}

// detach ends the trail.
func (l *ledger) detach() {
	l.mu.Lock()
	t := l.trail
	l.trail = nil
	if t != nil {
		t.dead = true
	}
	l.mu.Unlock()
	if t != nil && t.sub != nil {
		t.sub.Unsubscribe()
	}
}

// unlive marks the book as not there. The caller holds the mutex.
func (l *ledger) unlive() {
	select {
	case <-l.live:
		l.live = make(chan struct{})
	default:
	}
}

// become makes a book the ledger's own. What this process waited for may have
// come about between the old one and this. The caller holds the mutex.
func (l *ledger) become(b *book, at uint64) {
	l.book, l.at, l.lasting, l.load, l.since = b, at, 0, nil, 0
	b.given, b.ended = l.given, l.readerEnded
	for id, es := range l.sent {
		if es[0].seq > 0 && es[0].seq <= at {
			delete(l.sent, id)
			for _, e := range es {
				e.finish(errSkipped)
			}
		}
	}
	for seq := range l.verdicts {
		if seq <= at {
			l.judge(seq)
		}
	}
	for id, m := range l.members {
		m.reconcile(b.reader(id))
	}
	close(l.live)
}

// receive is the callback of a trail's subscription.
func (t *trail) receive(m *natsgo.Msg) {
	l := t.l
	if !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		answer := m.Reply // a heartbeat has none
		if stalled := m.Header.Get("Nats-Consumer-Stalled"); stalled != "" {
			answer = stalled
		}
		if answer != "" {
			_ = l.s.nc.Publish(answer, nil) // unheard, it is asked again
		}
		sent, err := strconv.ParseUint(m.Header.Get("Nats-Last-Consumer"), 10, 64)
		l.mu.Lock()
		defer l.mu.Unlock()
		t.heard = time.Now()
		if err == nil && sent != t.nth {
			t.die()
		}
		return
	}
	a, ok := parseAckSubject(m.Reply)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	t.heard = time.Now()
	if t.dead {
		return
	}
	if t.nth++; t.nth != a.nth {
		t.die()
		return
	}
	seq, at := a.seq, a.stored
	for l.load != nil {
		if seq <= l.load.until {
			if m.Subject == l.h.subject {
				priority, size, ttl := outside(m)
				l.load.message(seq, at, priority, size, ttl)
			}
			return
		}
		if !t.loaded(seq) {
			return
		}
	}
	if seq <= l.at {
		return
	}
	if seq > l.at+1 && seq-1 > l.safe {
		// Something is not there any more. Unless that was after a snapshot, it
		// was not in any book.
		if !t.check() {
			return
		}
		l.safe = seq - 1
	}
	if seq > l.at+1 {
		for missing := range l.verdicts {
			if missing < seq { // somebody deleted it
				l.judge(missing)
			}
		}
	}
	l.at = seq
	l.enter(m, seq, at)
}

// loaded makes a book of what came before a message, unless there is a newer
// snapshot by now, which speaks of more. It reports whether the trail goes on.
// The mutex is held, and let go meanwhile.
func (t *trail) loaded(seq uint64) bool {
	l := t.l
	l.mu.Unlock()
	m, snap, err := l.readSnapshot(l.ctx)
	l.mu.Lock()
	switch {
	case t.dead:
		return false
	case err != nil && !passing(err):
		l.unread, l.unreadAt = err, time.Now()
		t.die()
		return false
	case err != nil || m == nil || snap.At < l.load.until:
		t.die()
		return false
	case snap.At >= seq:
		l.load.until = snap.At
		return true
	}
	l.snapshot, l.safe = m.seq, seq-1
	l.become(l.load.book(snap), snap.At)
	return true
}

// check reads the newest snapshot; where the book is not past it, the trail is
// dead. The mutex is held, and let go meanwhile.
func (t *trail) check() bool {
	l := t.l
	l.mu.Unlock()
	m, err := l.newest(l.ctx)
	l.mu.Lock()
	if !t.dead && (err != nil || m == nil && l.snapshot > 0 || m != nil && m.at > l.at) {
		t.die()
	}
	return !t.dead
}

// die has another trail take over. The caller holds the mutex.
func (t *trail) die() {
	if !t.dead {
		t.dead = true
		signal(t.l.relink)
	}
}

// enter puts one message of the stream into the book.
func (l *ledger) enter(m *natsgo.Msg, seq uint64, at int64) {
	switch {
	case m.Subject == l.h.subject:
		priority, size, ttl := outside(m)
		l.book.message(seq, at, priority, size, ttl)
		l.judge(seq)
	case strings.HasSuffix(m.Subject, ".e") && m.Header.Get(headerBefore) == "":
		l.since++
		deeds, err := parseDeeds(m.Header.Get(headerDeeds))
		if err != nil {
			l.s.cfg.Logger.Error("nats: what is not a deed is left out", "queue", l.q.Name, "sequence", seq, "error", err)
		}
		id := m.Header.Get(headerMsgID)
		es := l.sent[id]
		delete(l.sent, id)
		if len(es) > 0 {
			l.s.clock.observe(es[0].at, time.Now(), time.Unix(0, at))
			l.caught = l.caught || es[0].at.After(l.trail.began)
		}
		for i := range deeds {
			res := l.book.deed(&deeds[i], at)
			if i < len(es) {
				es[i].seen(l.book, res)
			}
		}
		for _, e := range es {
			e.finish(nil)
		}
	case strings.HasSuffix(m.Subject, ".s"):
		if m.Header.Get(headerAt) == "0" && l.snapshot != seq { // everybody begins anew
			l.trail.die()
			return
		}
		l.snapshot, l.since = seq, 0
		// Not all of them write the next one, and not all the time.
		l.snapped = time.Now().Add(time.Duration(len(l.book.entries))*snapshotPace + rand.N(50*time.Millisecond))
		if last, err := strconv.ParseUint(m.Header.Get(headerAt), 10, 64); err == nil { // who wrote it deletes them
			l.book.gone = slices.DeleteFunc(l.book.gone, func(seq uint64) bool { return seq <= last })
		}
	default: // a part of a snapshot
		return
	}
	l.lasting, l.stamp = seq, at
	if due := l.book.due(); due > 0 && due != l.dueSeen {
		l.dueSeen = due
		signal(l.wake)
	}
}

// outside is what a message's headers say that the book needs.
func outside(m *natsgo.Msg) (priority, size int, ttl time.Duration) {
	priority, _ = strconv.Atoi(m.Header.Get(headerPrefix + "priority"))
	size, _ = strconv.Atoi(m.Header.Get("Nats-Msg-Size"))
	n, _ := strconv.ParseInt(m.Header.Get(headerPrefix+"ttl"), 10, 64)
	return min(max(priority, 0), math.MaxUint8), max(size, 0), ms(max(n, 0))
}

// errSkipped is what became of a deed whose place in the stream is behind the
// book: it came about, but nobody saw what came of it.
var errSkipped = errors.New("nats: the outcome of a deed was not seen")

// given hears of what readers get.
func (l *ledger) given(r *reader, e *entry) {
	if m := l.members[r.id]; m != nil {
		m.give(e)
	}
}

// readerEnded hears of readers whose lease has run out.
func (l *ledger) readerEnded(r *reader) {
	if m := l.members[r.id]; m != nil {
		m.lost()
	}
}
