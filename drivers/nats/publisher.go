package nats

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
	"github.com/polymq/polymq/routing"
)

// publisher sends parcels and matches the server's answers to them. Each
// parcel in flight has a slot, and each slot a reply subject made beforehand,
// all under one subscription: an answer costs neither an allocation nor a
// search.
type publisher struct {
	s     *store
	inbox string // prefix of the reply subjects
	sub   *natsgo.Subscription

	mu     sync.Mutex
	slots  []*slot
	free   []*slot
	parked []*emulate.Parcel // wait for the connection
	closed bool
	// lost is what nobody listened for, by incarnation; where there is some, a
	// goroutine of looking examines the queue.
	lost map[string][]suspect

	looking sync.WaitGroup
	ctx     context.Context
	quit    context.CancelFunc
	stopped chan struct{}
}

const (
	// answerTimeout is how long an answer is waited for. It is well within the
	// deduplication window, so that the retry leaves no second copy.
	answerTimeout = 5 * time.Second
	sweepInterval = time.Second

	// maxHeader is the server's limit for a message's headers.
	maxHeader = 1<<16 - 1
)

func (p *publisher) start(s *store) error {
	p.s = s
	p.inbox = s.nc.NewInbox() + "."
	p.lost = map[string][]suspect{}
	sub, err := s.nc.Subscribe(p.inbox+"*", p.answer)
	if err != nil {
		return err
	}
	p.sub = sub
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return err
	}
	p.ctx, p.quit = context.WithCancel(context.Background())
	p.stopped = make(chan struct{})
	go p.keep()
	return nil
}

// Append sends the parcels one behind the other and leaves it to nats.go's
// flusher to make large writes of them; it never waits for an answer. While
// there is no connection the parcels are parked: their outcome, unknown, comes
// when there is one again, and they are then sent anew.
func (s *store) Append(ctx context.Context, parcels []*emulate.Parcel, wait bool) {
	w := writers.Get().(*writer)
	defer w.release()
	now := time.Now()
	for _, parcel := range parcels {
		s.publisher.send(w, parcel, now)
	}
}

// noteStored ends a parcel of a kept queue, whose message is stored. Where the
// queue has limits, the book is kept from now on: it says whether a queue that
// refuses takes the message, and what another drops is removed from the broker
// by whoever keeps the book, which may be nobody else. Else who only publishes
// needs none.
func (s *store) noteStored(parcel *emulate.Parcel, seq uint64, repeat bool) {
	q := parcel.Queue
	var l *ledger
	var err error
	limited := q.MaxLength > 0 || q.MaxBytes > 0
	if limited {
		l, err = s.ledger(q)
	} else {
		s.ledgersMu.Lock()
		l = s.ledgers[q.Incarnation]
		s.ledgersMu.Unlock()
	}
	switch refuses := limited && q.Overflow == routing.RejectPublish; {
	case refuses && err != nil:
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err))
	case refuses:
		l.verdict(seq, parcel, repeat)
	default:
		if l != nil {
			l.stands(seq)
		}
		parcel.Done(nil)
	}
}

// resend sends one parcel again.
func (p *publisher) resend(parcel *emulate.Parcel) {
	w := writers.Get().(*writer)
	defer w.release()
	p.send(w, parcel, time.Now())
}

func (p *publisher) send(w *writer, parcel *emulate.Parcel, now time.Time) {
	m := w.write(parcel)
	if w.size > maxHeader {
		parcel.Done(fmt.Errorf("%w: the properties take %d bytes, of which NATS keeps at most %d", driver.ErrTooLarge, w.size, maxHeader))
		return
	}
	m.Subject = handleOf(parcel.Queue).subject
	sl, err := p.take(parcel, now)
	if err != nil {
		parcel.Done(err)
		return
	}
	m.Reply = sl.reply
	err = p.s.nc.PublishMsg(m)
	if err == nil || p.resolve(sl.index, sl.generation) == nil {
		return
	}
	switch {
	case errors.Is(err, natsgo.ErrReconnectBufExceeded):
		p.park(parcel)
	case errors.Is(err, natsgo.ErrMaxPayload):
		parcel.Done(wrap(err))
	case errors.Is(err, natsgo.ErrBadHeaderMsg), errors.Is(err, natsgo.ErrHeadersNotSupported):
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrRejected, err))
	case errors.Is(err, natsgo.ErrConnectionClosed):
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, driver.ErrClosed))
	default:
		// A write that failed half way: what arrived is not known.
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, err))
	}
}

func (p *publisher) park(parcel *emulate.Parcel) {
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.parked = append(p.parked, parcel)
	}
	p.mu.Unlock()
	if closed {
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, driver.ErrClosed))
	}
}

func (p *publisher) unpark() []*emulate.Parcel {
	p.mu.Lock()
	defer p.mu.Unlock()
	parcels := p.parked
	p.parked = nil
	return parcels
}

func (p *publisher) down() {
	all := func(*slot) bool { return true }
	for _, parcel := range p.abandon(all) {
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, natsgo.ErrDisconnected))
	}
}

func (p *publisher) up() {
	for _, parcel := range p.unpark() {
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, natsgo.ErrDisconnected))
	}
}

// answer is the subscription's callback.
func (p *publisher) answer(m *natsgo.Msg) {
	index, generation, ok := parseSlot(m.Subject[len(p.inbox):])
	if !ok {
		return
	}
	parcel := p.resolve(index, generation)
	if parcel == nil {
		return
	}
	if len(m.Data) == 0 { // nobody listens: the queue is gone, or has no leader
		p.suspect(parcel, natsgo.ErrNoResponders)
		return
	}
	seq, err := parseAck(m.Data)
	switch {
	case err == nil && handleOf(parcel.Queue).kept:
		p.s.noteStored(parcel, seq, bytes.Contains(m.Data, []byte(`"duplicate"`)))
	case err == nil:
		parcel.Done(nil)
	case isStreamGone(err):
		p.suspect(parcel, err)
	default:
		parcel.Done(published(err))
	}
}

// keep looks after what no answer resolves.
func (p *publisher) keep() {
	defer close(p.stopped)
	tick := time.NewTicker(sweepInterval)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.sweep(now)
		case <-p.ctx.Done():
			return
		}
	}
}

// sweep gives up on answers that do not come, and drops parked parcels that
// nobody waits for.
func (p *publisher) sweep(now time.Time) {
	for _, parcel := range p.abandon(func(sl *slot) bool { return now.Sub(sl.sent) > answerTimeout }) {
		parcel.Done(fmt.Errorf("%w: no answer from the server: %w", driver.ErrUnconfirmed, natsgo.ErrTimeout))
	}
	if p.s.isLive() { // parked just when the connection came back
		p.up()
	}
	var dropped []*emulate.Parcel
	p.mu.Lock()
	kept := p.parked[:0]
	for _, parcel := range p.parked {
		if parcel.Abandoned() {
			dropped = append(dropped, parcel)
		} else {
			kept = append(kept, parcel)
		}
	}
	clear(p.parked[len(kept):])
	p.parked = kept
	p.mu.Unlock()
	for _, parcel := range dropped {
		parcel.Done(driver.ErrUnconfirmed)
	}
}

// close resolves what is left; nothing is sent any more.
func (p *publisher) close() {
	if p.quit == nil {
		return
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.quit()
	<-p.stopped
	p.looking.Wait()
	left := append(p.abandon(func(*slot) bool { return true }), p.unpark()...)
	for _, parcel := range left {
		parcel.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, driver.ErrClosed))
	}
}
