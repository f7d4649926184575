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

// Why a message was dead-lettered, in RabbitMQ's words.
const (
	reasonRejected = "rejected"
	reasonLimit    = "delivery_limit"
)

// deadLetters are the messages that a subscriber is moving to its queue's
// dead-letter exchange. The hold lasts until every target has the message,
// then it is acknowledged: twice at worst, never none.
type deadLetters struct {
	s    *subscriber
	pub  *publisher
	wake chan struct{} // cap 1
	idle chan struct{} // cap 1: nothing is on its way

	mu   sync.Mutex
	open map[*deadLetter]struct{}
	turn []*deadLetter // where the keeper has something to do
}

// deadLetter is one of them; it owns its publishing.
type deadLetter struct {
	all    *deadLetters
	d      *Delivery
	reason string
	sent   bool // and its turn comes when it is resolved
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
func (x *deadLetters) bury(ctx context.Context, d *Delivery, reason string) error {
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
				send = append(send, sending{pub: x.pub, publishing: &l.pub, dedupID: l.dedupID(), avoid: l.circle()})
			}
			continue
		}
		err := l.pub.Err()
		switch {
		case err == nil, errors.Is(err, driver.ErrUnroutable), errors.Is(err, driver.ErrNotFound):
			if x.s.in.release(l.d) {
				err = x.s.consumer.Settle(x.s.ctx, l.d, driver.Ack, 0)
				if err != nil && !errors.Is(err, driver.ErrLost) {
					x.s.c.cfg.Logger.Warn("a dead-lettered message could not be acknowledged; it comes again", "queue", x.s.q.Name, "error", err)
				}
			}
			x.forget(l)
		case errors.Is(err, driver.ErrClosed), errors.Is(err, driver.ErrUnconfirmed):
			x.forget(l)
		default:
			if l.tries == 0 {
				x.s.c.cfg.Logger.Warn("a message could not be dead-lettered; trying again", "queue", x.s.q.Name, "error", err)
			}
			l.at = now.Add(backoff(l.tries))
			l.tries++
			l.sent = false
			l.pub.Reset(l.pub.Message, l.pub.ID)
			wait = min(wait, l.at.Sub(now))
			x.later(l)
		}
	}
	if len(send) > 0 {
		x.send(send)
	}
	return wait
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
	none := len(x.open) == 0
	x.mu.Unlock()
	if none {
		signal(x.idle)
	}
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
	if l.reason == reasonRejected {
		return nil
	}
	var names []string
	deaths, _ := l.pub.Message.Header[headerDeath].([]any)
	for _, e := range deaths {
		t, _ := e.(map[string]any)
		if t["reason"] == reasonRejected {
			break
		}
		if name, ok := t["queue"].(string); ok {
			names = append(names, name)
		}
	}
	return names
}

const headerDeath = "x-death"

// deadMessage is the message as the dead-letter exchange gets it: with
// RabbitMQ's headers about its deaths, newest first, one for each queue and
// reason.
func deadMessage(d *driver.Delivery, q *Queue, reason string, now time.Time) *driver.Message {
	m := d.Message
	h := maps.Clone(m.Header)
	if h == nil {
		h = map[string]any{}
	}
	m.Header = h
	delete(h, "BCC")
	cc, _ := h["CC"].([]any)
	keys := append([]any{m.Key}, cc...)
	death := map[string]any{
		"queue": q.Name, "reason": reason, "count": int64(1), "exchange": d.Exchange,
		"routing-keys": keys, "time": now.UTC().Truncate(time.Second),
	}
	before, _ := h[headerDeath].([]any)
	deaths := []any{death}
	for _, e := range before {
		t, ok := e.(map[string]any)
		if ok && t["queue"] == q.Name && t["reason"] == reason {
			if n, ok := t["count"].(int64); ok {
				t = maps.Clone(t)
				t["count"] = n + 1
				deaths[0] = t
				continue
			}
		}
		deaths = append(deaths, e)
	}
	h[headerDeath] = deaths
	if _, ok := h["x-first-death-queue"]; !ok {
		h["x-first-death-queue"], h["x-first-death-reason"], h["x-first-death-exchange"] = q.Name, reason, d.Exchange
	}
	if q.DeadLetterKey != "" {
		m.Key = q.DeadLetterKey
		delete(h, "CC")
	}
	return &m
}
