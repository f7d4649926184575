package nats

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	crand "crypto/rand"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// member is a consumer of a kept queue: a reader in its book. One goroutine
// brings what the book gives it (run). All its fields but those that never
// change are guarded by the ledger's mutex.
type member struct {
	l  *ledger
	in *emulate.Inbox

	ctx  context.Context // ends when nothing is delivered any more
	quit context.CancelFunc
	done sync.WaitGroup
	more chan struct{} // cap 1: due has grown, or the reader is to come back

	id     string // the reader's, anew each time it comes
	joined bool
	limit  int       // as told
	sign   time.Time // when the last sign of life was given
	until  time.Time // the reader lasts until then at least
	lapse  time.Time // no hold of the inbox ends before
	holds  map[uint64]*kept
	due    []*kept // of holds, not yet brought
	ending bool
	closed bool
}

// lease is how long the reader lasts without a sign.
func (m *member) lease() time.Duration { return m.l.s.opt.lease }

func (l *ledger) consume(ctx context.Context, in *emulate.Inbox) (*member, error) {
	m := &member{l: l, in: in, more: make(chan struct{}, 1), holds: map[uint64]*kept{}}
	m.ctx, m.quit = context.WithCancel(l.ctx)
	if err := m.join(ctx); err != nil {
		m.quit()
		l.mu.Lock()
		if l.members[m.id] == m {
			delete(l.members, m.id)
			l.give(&errand{deed: deed{Do: doLeave, By: m.id}})
		}
		l.mu.Unlock()
		return nil, err
	}
	m.done.Go(m.run)
	return m, nil
}

// join makes the member a reader, as one that has just come.
func (m *member) join(ctx context.Context) error {
	l := m.l
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return l.err
	}
	delete(l.members, m.id)
	clear(m.holds) // a book that was read anew may have given some to the reader that was
	m.due = nil
	m.id, m.limit, m.sign, m.joined = crand.Text(), m.in.Prefetch(), time.Now(), false
	l.members[m.id] = m
	d := deed{Do: doJoin, By: m.id, N: m.limit, MS: wholeMS(m.lease())}
	l.mu.Unlock()
	return l.do(ctx, d, m, func(b *book, _ result) { m.joined = b.reader(d.By) != nil })
}

// run brings what is due, tells of more room, and comes back after the
// reader's lease ran out.
func (m *member) run() {
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.more:
		case <-m.in.More():
			m.l.mu.Lock()
			m.tellLimit()
			m.l.mu.Unlock()
		}
		m.l.mu.Lock()
		out := !m.joined
		m.l.mu.Unlock()
		if out && m.join(m.ctx) != nil {
			if wait(m.ctx, time.Second) != nil {
				return // the ledger has ended, or the member
			}
			signal(m.more)
			continue
		}
		m.bring()
	}
}

// tellLimit tells the book how many the reader holds at most. The caller holds
// the mutex.
func (m *member) tellLimit() {
	if n := m.in.Prefetch(); m.joined && !m.ending && n != m.limit {
		m.limit = n
		m.l.give(&errand{deed: deed{Do: doLimit, By: m.id, N: n}})
	}
}

// lost is called when the reader's lease has run out: whatever it held goes to
// others. The caller holds the mutex.
func (m *member) lost() {
	m.joined = false
	clear(m.holds)
	m.due = nil
	m.in.Drain()
	signal(m.more)
}

// reconcile brings the member in line with another book; what it has there and
// did not know of comes in the order of the queue. The caller holds the mutex.
func (m *member) reconcile(r *reader) {
	if r == nil {
		if m.joined {
			m.lost()
		}
		return
	}
	for seq, k := range m.holds {
		if e := r.holds[seq]; e == nil || e.gen != k.Gen {
			delete(m.holds, seq) // settled, and the deed is on its way, or not the member's any more
		}
	}
	inOrder := func(x, y *entry) int { return cmp.Or(cmp.Compare(y.level, x.level), cmp.Compare(x.seq, y.seq)) }
	for _, e := range slices.SortedFunc(maps.Values(r.holds), inOrder) {
		if m.holds[e.seq] == nil && !m.settling(e.seq) {
			m.give(e)
		}
	}
}

// settling reports whether the member has settled a delivery and the book does
// not have it yet.
func (m *member) settling(seq uint64) bool {
	in := func(es []*errand) bool {
		for _, e := range es {
			for _, item := range e.deed.List {
				if e.deed.By == m.id && uint64(item[0]) == seq {
					return true
				}
			}
		}
		return false
	}
	for _, es := range m.l.sent {
		if in(es) {
			return true
		}
	}
	return in(m.l.errands)
}

// settled ends a hold by a deed. The caller holds the mutex.
func (m *member) settled(k *kept, d deed, extra ...int64) {
	delete(m.holds, k.Seq)
	d.By = m.id
	d.List = [][]int64{append([]int64{int64(k.Seq), int64(k.Gen)}, extra...)}
	m.l.give(&errand{deed: d})
}

func (m *member) Settle(ctx context.Context, d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	k := d.Ref.(*kept)
	l := m.l
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.err != nil && errors.Is(l.err, driver.ErrClosed):
		return l.err
	case l.err != nil:
		return fmt.Errorf("%w: %w", driver.ErrLost, l.err)
	case m.holds[k.Seq] != k || time.Now().After(m.until):
		return driver.ErrLost
	}
	m.tellLimit()
	switch {
	case o == driver.Ack:
		m.settled(k, deed{Do: doAck})
	case delay > 0:
		m.settled(k, deed{Do: doNack}, wholeMS(delay))
	default:
		m.settled(k, deed{Do: doNack})
	}
	return nil
}

// Extend gives a sign of life: all holds of a reader last as long as it.
func (m *member) Extend(ctx context.Context, ds []*emulate.Delivery) (lost []*emulate.Delivery, err error) {
	m.l.mu.Lock()
	id, now := m.id, time.Now()
	m.sign = now
	m.l.mu.Unlock()
	if err := m.l.do(ctx, deed{Do: doAlive, By: id}, m, nil); err != nil {
		return nil, err
	}
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	for _, d := range ds {
		if k := d.Ref.(*kept); m.holds[k.Seq] == k {
			k.until = now.Add(m.lease())
		} else {
			lost = append(lost, d)
		}
	}
	return lost, nil
}

// lapsed gives back what the inbox does not hold any more, having heard too late
// that the reader lives, and returns when to look again. The caller holds the
// mutex.
func (m *member) lapsed(now time.Time) time.Time {
	if now.Before(m.lapse) {
		return m.lapse
	}
	m.lapse = now.Add(m.lease())
	var over []*kept
	for _, k := range m.holds {
		switch {
		case !k.put:
		case now.After(k.until):
			over = append(over, k)
		case k.until.Before(m.lapse):
			m.lapse = k.until
		}
	}
	slices.SortFunc(over, func(x, y *kept) int { return cmp.Compare(x.Seq, y.Seq) })
	for _, k := range over {
		m.settled(k, deed{Do: doNack})
	}
	return m.lapse
}

// Drain stops delivering and gives back what was not handed out.
func (m *member) Drain(ctx context.Context) error {
	m.quit()
	m.done.Wait()
	l := m.l
	l.mu.Lock()
	m.ending = true
	for _, d := range m.in.Prefetched() {
		d.Ref.(*kept).put = false
	}
	d := deed{Do: doLimit, By: m.id}
	for seq, k := range m.holds {
		if !k.put && len(d.List) < maxParted {
			d.List = append(d.List, []int64{int64(seq), int64(k.Gen)})
			delete(m.holds, seq)
		}
	}
	m.due = nil
	l.mu.Unlock()
	if err := l.do(ctx, d, nil, nil); errors.Is(err, emulate.ErrGone) {
		return nil
	} else if err != nil {
		return fmt.Errorf("giving back what was not handed out: %w", wrap(err))
	}
	l.mu.Lock()
	for _, k := range m.holds { // it came meanwhile
		if !k.put {
			m.settled(k, deed{Do: doBack})
		}
	}
	m.due = nil
	l.mu.Unlock()
	return l.do(ctx, deed{Do: doTick}, nil, nil)
}

// Close takes the reader out of the book, with what it holds.
func (m *member) Close(ctx context.Context) error {
	m.quit()
	m.done.Wait()
	l := m.l
	l.mu.Lock()
	if m.closed {
		l.mu.Unlock()
		return nil
	}
	m.closed, m.ending = true, true
	l.mu.Unlock()
	_, handed := m.in.Drain()
	l.mu.Lock()
	d := deed{Do: doLeave, By: m.id}
	for _, h := range handed {
		switch k := h.Ref.(*kept); {
		case m.holds[k.Seq] != k:
		case len(d.List) < maxParted: // with the leave, or the reader would get others for them
			d.List = append(d.List, []int64{int64(k.Seq), int64(k.Gen)})
		default:
			m.settled(k, deed{Do: doNack})
		}
	}
	clear(m.holds)
	m.due, m.joined = nil, false
	id := m.id
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := l.do(ctx, d, nil, nil)
	l.mu.Lock()
	delete(l.members, id)
	l.used = time.Now()
	l.mu.Unlock()
	if err != nil && !errors.Is(err, emulate.ErrGone) && !errors.Is(err, driver.ErrClosed) {
		return fmt.Errorf("giving back what the subscriber held, which comes again after its lease of %v: %w", m.lease(), wrap(err))
	}
	return nil
}
