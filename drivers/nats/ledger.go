package nats

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// ledger keeps the book of a queue that has limits, priorities or a single
// active consumer, as this process sees it, for as long as the process has to
// do with the queue. One goroutine reads the stream and looks after what comes
// with time (run), one sends deeds (send).
type ledger struct {
	s *store
	q *emulate.Queue
	h *handle

	ctx    context.Context // ends with the ledger
	quit   context.CancelFunc
	relink chan struct{} // cap 1: the trail is dead
	begun  chan struct{} // closed once the stream was seen to go by this program's rules
	wake   chan struct{} // cap 1: there is something to do
	post   chan struct{} // cap 1: errands has grown

	mu       sync.Mutex
	book     *book
	at       uint64   // the last message in the book
	lasting  uint64   // the last that only a snapshot removes; 0: unknown
	stamp    int64    // when that was stored
	load     *loading // until it is the book
	safe     uint64   // what is missing up to here does not matter
	trail    *trail
	live     chan struct{} // closed while the book is there
	caught   bool          // the book has what was in the stream when the trail began
	created  int64         // when the queue was made
	seen     uint64        // the last message that this process knows to be stored
	snapshot uint64        // the last one's own sequence
	dueSeen  int64         // what run was woken for
	since    int           // what came since the snapshot
	snapped  time.Time     // not to make one before
	settling bool          // one is being made
	unread   error         // why the snapshot cannot be read
	unreadAt time.Time
	members  map[string]*member
	errands  []*errand
	sent     map[string][]*errand // by the id of their message
	verdicts map[uint64][]waiting // by sequence
	used     time.Time
	trouble  error // why the stream could not be read the last time
	err      error // the end
}

const (
	// ledgerIdle is how long a ledger is kept that nobody uses.
	ledgerIdle = 30 * time.Second
	// snapshotEvery is after how many changes the book is written down and
	// what led to it is deleted.
	snapshotEvery = 2000
	// snapshotPace is how long to wait between two for each message in the book,
	// which takes so long to write down, and to read.
	snapshotPace = 10 * time.Microsecond
)

// ledger is that of a queue, made where there is none.
func (s *store) ledger(q *emulate.Queue) (*ledger, error) {
	s.ledgersMu.Lock()
	defer s.ledgersMu.Unlock()
	if s.ledgersClosed {
		return nil, driver.ErrClosed
	}
	if l := s.ledgers[q.Incarnation]; l != nil && l.use() {
		return l, nil
	}
	l := &ledger{
		s: s, q: q, h: s.newHandle(q),
		relink: make(chan struct{}, 1), begun: make(chan struct{}), wake: make(chan struct{}, 1), post: make(chan struct{}, 1), live: make(chan struct{}),
		members: map[string]*member{}, sent: map[string][]*errand{}, verdicts: map[uint64][]waiting{},
		used: time.Now(),
	}
	l.ctx, l.quit = context.WithCancel(context.Background())
	s.ledgers[q.Incarnation] = l
	s.ledgersDone.Go(l.run)
	s.ledgersDone.Go(l.send)
	return l, nil
}

// use reports whether the ledger goes on, and then for a while.
func (l *ledger) use() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.used = time.Now()
	return l.err == nil
}

// run attaches to the stream, again and again, and does what is due.
func (l *ledger) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer l.detach()
	deleted, err := l.s.nc.Subscribe(l.h.held, func(m *natsgo.Msg) {
		if m.Reply == "" { // the queue may be gone
			signal(l.relink)
		}
	})
	if err != nil {
		l.end(wrap(err))
		return
	}
	defer deleted.Unsubscribe()
	again, pause := true, time.Duration(0)
	for {
		if again && l.s.isLive() {
			err := l.s.once(l.ctx, l.attach)
			switch {
			case err == nil:
				again, pause = false, 0
			case errors.Is(err, jetstream.ErrStreamNotFound), isStreamGone(err):
				l.end(fmt.Errorf("%w: %w", emulate.ErrGone, err))
				return
			case l.ctx.Err() != nil:
				return
			default:
				if pause == 0 {
					l.s.cfg.Logger.Warn("nats: the queue's stream cannot be read; trying again", "queue", l.q.Name, "error", err)
				}
				pause = min(max(2*pause, 10*time.Millisecond), time.Second)
			}
			l.troubled(err)
		}
		wait := l.chores()
		if again {
			wait = pause
			if !l.s.isLive() {
				wait = time.Second // relink follows
			}
		}
		timer.Reset(wait)
		select {
		case <-l.ctx.Done():
			return
		case <-l.relink:
			again = true
		case <-l.wake:
		case <-timer.C:
		}
		if l.expired() {
			return
		}
	}
}

// troubled notes how it went to read the stream. Where this program cannot read
// it, who waits for the book waits in vain.
func (l *ledger) troubled(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trouble = err
	if errors.Is(err, errors.ErrUnsupported) {
		for _, es := range l.sent {
			for _, e := range es {
				e.refuse(err)
			}
		}
		l.errands = slices.DeleteFunc(l.errands, func(e *errand) bool { return e.refuse(err) })
		l.unconfirmed(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err), func(waiting) bool { return true })
	}
}

// expired ends a ledger that nobody uses.
func (l *ledger) expired() bool {
	l.mu.Lock()
	idle := l.err == nil && len(l.members)+len(l.errands)+len(l.sent)+len(l.verdicts) == 0 && time.Since(l.used) > ledgerIdle
	if idle {
		l.err = driver.ErrClosed
	}
	l.mu.Unlock()
	if idle {
		l.end(driver.ErrClosed)
	}
	return idle
}

// end ends the ledger, and with it all that wait for the queue.
func (l *ledger) end(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	var open []*errand
	open, l.errands = l.errands, nil
	for _, es := range l.sent {
		open = append(open, es...)
	}
	clear(l.sent)
	verdicts := l.verdicts
	l.verdicts = map[uint64][]waiting{}
	members := slices.Collect(maps.Values(l.members))
	l.mu.Unlock()
	l.quit()
	for _, e := range open {
		e.finish(err)
	}
	for _, ws := range verdicts {
		for _, w := range ws {
			l.s.publisher.suspect(w.parcel, err)
		}
	}
	for _, m := range members {
		if errors.Is(err, emulate.ErrGone) {
			m.in.Fail(fmt.Errorf("%w: %w", driver.ErrNotFound, err))
		}
	}
	l.s.ledgersMu.Lock()
	if l.s.ledgers[l.q.Incarnation] == l {
		delete(l.s.ledgers, l.q.Incarnation)
	}
	l.s.ledgersMu.Unlock()
}

// closeLedgers ends all of them, and their members before; no other is made.
func (s *store) closeLedgers(ctx context.Context) {
	s.ledgersMu.Lock()
	s.ledgersClosed = true
	ledgers := slices.Collect(maps.Values(s.ledgers))
	s.ledgersMu.Unlock()
	for _, l := range ledgers {
		l.mu.Lock()
		members := slices.Collect(maps.Values(l.members))
		l.mu.Unlock()
		for _, m := range members {
			m.in.Fail(driver.ErrClosed)
			m.Close(ctx)
		}
		l.end(driver.ErrClosed)
	}
	s.ledgersDone.Wait()
}

// relinkLedgers tells them of another connection.
func (s *store) relinkLedgers() {
	s.ledgersMu.Lock()
	defer s.ledgersMu.Unlock()
	for _, l := range s.ledgers {
		signal(l.relink)
	}
}

// ready waits until the book has all that this process knows to be stored.
func (l *ledger) ready(ctx context.Context) error {
	for pause := time.Millisecond / 4; ; pause = min(2*pause, 20*time.Millisecond) {
		l.mu.Lock()
		live, err, behind := l.live, l.err, l.at < l.seen
		l.mu.Unlock()
		if err != nil {
			return err
		}
		select {
		case <-live:
			if !behind {
				return nil
			}
		default:
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// chores does what is due and says how long until there is more.
func (l *ledger) chores() time.Duration {
	now, clock := time.Now(), l.s.Now().UnixNano()
	next := time.Second
	l.mu.Lock()
	t := l.trail
	if t != nil && l.s.isLive() && now.Sub(t.heard) > 3*trailHeartbeat {
		signal(l.relink)
	}
	for id, m := range l.members {
		if m.joined {
			if age := now.Sub(m.sign); age >= m.lease()/3 {
				m.sign = now
				l.give(&errand{deed: deed{Do: doAlive, By: id}, member: m})
			} else {
				next = min(next, m.lease()/3-age)
			}
			next = min(next, m.lapsed(now).Sub(now))
		}
	}
	if l.book == nil || l.load != nil {
		l.unconfirmed(driver.ErrUnconfirmed, func(w waiting) bool { return w.parcel.Abandoned() })
		l.mu.Unlock()
		return max(next, time.Millisecond)
	}
	if due := l.book.due(); due > 0 {
		if left := time.Duration(due - clock); left > 0 {
			next = min(next, left)
		} else {
			if len(l.errands)+len(l.sent) == 0 {
				l.give(&errand{deed: deed{Do: doTick}})
			}
			next = min(next, 20*time.Millisecond) // the server's clock may be behind
		}
	}
	l.miss(math.MaxUint64)
	if !l.settling && (l.since >= snapshotEvery || len(l.book.gone) >= snapshotEvery) {
		if left := l.snapped.Sub(now); left > 0 {
			next = min(next, left)
		} else {
			l.settling = true
			l.s.ledgersDone.Go(l.settle)
		}
	}
	l.mu.Unlock()
	return max(next, time.Millisecond)
}

// miss sends deeds again that are not where they were stored, which the book has
// seen, or behind the stream's last message: the server lost them. The caller
// holds the mutex.
func (l *ledger) miss(last uint64) {
	for id, es := range l.sent {
		if es[0].seq == 0 || l.at < es[0].seq && es[0].seq <= last {
			continue
		}
		delete(l.sent, id)
		for _, e := range es {
			if e.seq = 0; e.done != nil {
				e.finish(errSkipped)
			} else {
				l.give(e)
			}
		}
	}
}

// settle is the goroutine that settles up once.
func (l *ledger) settle() {
	err := l.settleUp(l.ctx)
	l.mu.Lock()
	l.settling = false
	if err != nil {
		l.snapped = time.Now().Add(time.Second)
	}
	l.mu.Unlock()
	if err != nil && l.ctx.Err() == nil && !errors.Is(err, natsgo.ErrDisconnected) {
		l.s.cfg.Logger.Warn("nats: the queue's log could not be cut short; trying again", "queue", l.q.Name, "error", err)
	}
	signal(l.wake)
}
