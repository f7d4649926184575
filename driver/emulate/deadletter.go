package emulate

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// deadLetters are the messages that a subscriber is moving to its queue's
// dead-letter exchange. The hold lasts until every target has the message,
// then it is acknowledged: twice at worst, never none.
type deadLetters struct {
	s    *subscriber
	pub  *publisher
	wake chan struct{} // cap 1
	idle chan struct{} // cap 1: nothing is on its way

	stuck bool // the newest had nowhere to go; the keeper's

	mu   sync.Mutex
	open map[*deadLetter]struct{}
	turn []*deadLetter // where the keeper has something to do
}

// deadLetter is one of them; it owns its publishing.
type deadLetter struct {
	all    *deadLetters
	d      *Delivery
	reason Reason
	id     string   // to deduplicate by
	avoid  []string // queues
	sent   bool     // and its turn comes when it is resolved
	short  bool     // without the history that made it too large
	tries  int
	at     time.Time // the next try
	pub    driver.Publishing
}

func (x *deadLetters) init(s *subscriber) {
	x.s = s
	x.pub = s.c.publisher(s.q.DeadLetterExchange, false)
	x.wake = make(chan struct{}, 1)
	x.idle = make(chan struct{}, 1)
	x.open = map[*deadLetter]struct{}{}
}

// bury begins to move a message; without a dead-letter exchange it is dropped.
func (x *deadLetters) bury(ctx context.Context, d *Delivery, reason Reason) error {
	if x.s.q.DeadLetterExchange == "" {
		if !x.s.in.release(d) {
			return driver.ErrLost
		}
		return x.s.settle(ctx, d, driver.Ack, 0)
	}
	if !x.s.in.holds(d) {
		return driver.ErrLost
	}
	l := &deadLetter{all: x, d: d, reason: reason}
	m := deadMessage(&d.Delivery, x.s.q, reason, time.Now())
	l.pub.Owner = l
	l.pub.Reset(m, m.ID)
	l.id, l.avoid = l.dedupID(), l.circle()
	x.mu.Lock()
	x.open[l] = struct{}{}
	x.turn = append(x.turn, l)
	x.mu.Unlock()
	signal(x.wake)
	return nil
}

// Resolved leaves the rest to the keeper.
func (l *deadLetter) Resolved(*driver.Publishing) {
	l.all.mu.Lock()
	l.all.turn = append(l.all.turn, l)
	l.all.mu.Unlock()
	signal(l.all.wake)
}

// step does what there is to do and says how long until there is more. Only
// the keeper calls it.
func (x *deadLetters) step() time.Duration {
	now, wait := time.Now(), time.Hour
	var send []sending
	x.mu.Lock()
	turn := x.turn
	x.turn = nil
	x.mu.Unlock()
	for _, l := range turn {
		if !l.sent {
			if d := l.at.Sub(now); d > 0 {
				wait = min(wait, d)
				x.later(l)
			} else if !x.s.in.holds(l.d) {
				x.forget(l)
			} else {
				l.sent = true
				send = append(send, sending{pub: x.pub, publishing: &l.pub, dedupID: l.id, avoid: l.avoid})
			}
			continue
		}
		if x.judge(l, l.pub.Err()) {
			l.at = now.Add(backoff(l.tries))
			l.sent = false
			l.pub.Reset(l.pub.Message, l.pub.ID)
			wait = min(wait, l.at.Sub(now))
			x.mu.Lock()
			l.tries++
			x.turn = append(x.turn, l)
			x.mu.Unlock()
			signal(x.idle)
		}
	}
	if len(send) > 0 {
		x.send(send)
	}
	return wait
}

// judge reports whether one is to be tried again; otherwise it is done with.
// Where nothing takes it, it waits, as RabbitMQ's at-least-once does, but for
// those that would go round.
func (x *deadLetters) judge(l *deadLetter, err error) (again bool) {
	log, q := x.s.c.cfg.Logger, x.s.q
	nowhere := errors.Is(err, driver.ErrUnroutable) || errors.Is(err, driver.ErrNotFound)
	switch {
	case err == nil:
		x.stuck = false
		x.leave(l, driver.Ack, 0)
	case errors.Is(err, errCircle):
		x.leave(l, driver.Ack, 0)
	case errors.Is(err, driver.ErrClosed), errors.Is(err, driver.ErrUnconfirmed):
		x.forget(l)
	case nowhere && q.BestEffortDeadLetter:
		x.nowhere("a dead letter had nowhere to go and was dropped, as BestEffortDeadLetter says", err)
		x.leave(l, driver.Ack, 0)
	case nowhere:
		x.nowhere("a dead letter has nowhere to go and is kept until a queue takes it: "+
			"declare its exchange and bind a queue to it, or set BestEffortDeadLetter", err)
		if !x.s.in.setAside(l.d) && l.tries == 0 {
			log.Error("too many dead letters have nowhere to go: this one counts in the subscriber's prefetch", "queue", q.Name)
		}
		return true
	case errors.Is(err, driver.ErrTooLarge) && l.short:
		log.Error("a message is too large to be dead-lettered and goes back to its queue: "+
			"let the broker take larger ones, or reject it where there is no dead-letter exchange", "queue", q.Name, "id", l.pub.ID, "error", err)
		x.leave(l, driver.Nack, time.Second<<min(max(l.d.Attempt-1, 0), 6))
	case errors.Is(err, driver.ErrTooLarge):
		l.short = true
		l.pub.Message.Header = shortHistory(l.pub.Message.Header)
		return true
	default:
		if l.tries == 0 {
			log.Warn("a message could not be dead-lettered; trying again", "queue", q.Name, "error", err)
		}
		return true
	}
	return false
}

// nowhere tells of the first that has nowhere to go since one has arrived.
func (x *deadLetters) nowhere(text string, err error) {
	if !x.stuck {
		x.stuck = true
		x.s.c.cfg.Logger.Warn(text, "queue", x.s.q.Name, "dead-letter exchange", x.s.q.DeadLetterExchange, "error", err)
	}
}

// leave settles the message that a dead letter was made of.
func (x *deadLetters) leave(l *deadLetter, o driver.Outcome, delay time.Duration) {
	if x.s.in.release(l.d) {
		err := x.s.consumer.Settle(x.s.ctx, l.d, o, delay)
		if err != nil && !errors.Is(err, driver.ErrLost) {
			x.s.c.cfg.Logger.Warn("a dead-lettered message could not be settled; it comes again", "queue", x.s.q.Name, "error", err)
		}
	}
	x.forget(l)
}

func (x *deadLetters) later(l *deadLetter) {
	x.mu.Lock()
	x.turn = append(x.turn, l)
	x.mu.Unlock()
}

// send needs the lease like any publisher.
func (x *deadLetters) send(ss []sending) {
	ctx, cancel := context.WithTimeout(x.s.ctx, LeaseTime)
	defer cancel()
	if err := x.s.c.lease.start(ctx); err != nil {
		for i := range ss {
			ss[i].resolve(fmt.Errorf("no topology lease: %v", err))
		}
		return
	}
	x.pub.dispatch(ctx, ss, false)
}

func (x *deadLetters) forget(l *deadLetter) {
	x.mu.Lock()
	delete(x.open, l)
	x.mu.Unlock()
	signal(x.idle)
}

// drain waits for what is on its way, but not for what fails again and again.
func (x *deadLetters) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for {
		x.mu.Lock()
		none := true
		for l := range x.open {
			none = none && l.tries > 0
		}
		x.mu.Unlock()
		if none {
			return
		}
		select {
		case <-x.idle:
		case <-ctx.Done():
			return
		}
	}
}

// end gives up the rest: their holds are given back, and they come again.
func (x *deadLetters) end() {
	x.mu.Lock()
	open := slices.Collect(maps.Keys(x.open))
	x.mu.Unlock()
	for _, l := range open {
		l.pub.Resolve(driver.ErrClosed)
	}
}

const drainTime = 2 * time.Second

// errCircle is the outcome of a dead letter that only queues which it must not
// go to would take. It is dropped.
var errCircle = fmt.Errorf("%w: it would go round for ever", driver.ErrUnroutable)

// dedupID is the same for every try to move this message out of this queue,
// also by whoever gets it next, should the acknowledgement fail.
func (l *deadLetter) dedupID() string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %s", l.all.s.q.Incarnation, l.d.Seq, l.d.Message.ID)
	return "dead-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// circle is where the message may not go: it was there before, and nobody has
// rejected it since, so it would go round for ever.
func (l *deadLetter) circle() []string {
	if l.reason == Rejected {
		return nil
	}
	var names []string
	deaths, _ := l.pub.Message.Header[headerDeath].([]any)
	for _, e := range deaths {
		t, _ := e.(map[string]any)
		if t["reason"] == string(Rejected) {
			break
		}
		if name, ok := t["queue"].(string); ok {
			names = append(names, name)
		}
	}
	return names
}
