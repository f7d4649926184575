package emulate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/polymq/polymq/driver"
)

// deadLetters makes moves of what a queue gives up: to its dead-letter
// exchange.
type deadLetters struct {
	c  *conn
	q  *Queue
	to *publisher
	// aside, where set, takes what must wait out of a count, and reports
	// whether there was room for that.
	aside func(d *Delivery) bool
	stuck bool // the newest had nowhere to go; the mover's
}

func (x *deadLetters) init(c *conn, q *Queue) {
	x.c, x.q = c, q
	x.to = c.publisher(q.DeadLetterExchange, false)
}

// move begins to move a message.
func (x *deadLetters) move(m *mover, d *Delivery, reason Reason) *move {
	letter := deadMessage(&d.Delivery, x.q, reason, x.c.store.Now())
	v := &move{
		d: d, from: x.q, to: x.to, judge: x.judge,
		id:    deadID(x.q, d),
		avoid: circle(letter, reason),
	}
	m.begin(v, letter)
	return v
}

// judge has a dead letter wait where nothing takes it, as RabbitMQ's
// at-least-once does, but for those that would go round.
func (x *deadLetters) judge(v *move, err error) verdict {
	log, q := x.c.cfg.Logger, x.q
	nowhere := errors.Is(err, driver.ErrUnroutable) || errors.Is(err, driver.ErrNotFound)
	again := verdict{again: backoff(v.tries)}
	switch {
	case err == nil:
		x.stuck = false
		return verdict{settle: driver.Ack}
	case errors.Is(err, errCircle):
		return verdict{settle: driver.Ack}
	case nowhere && q.BestEffortDeadLetter:
		x.nowhere("a dead letter had nowhere to go and was dropped, as BestEffortDeadLetter says", err)
		return verdict{settle: driver.Ack}
	case nowhere:
		x.nowhere("a dead letter has nowhere to go and is kept until a queue takes it: "+
			"declare its exchange and bind a queue to it, or set BestEffortDeadLetter", err)
		if x.aside != nil && !x.aside(v.d) && v.tries == 0 {
			log.Error("too many dead letters have nowhere to go: this one counts in the subscriber's prefetch", "queue", q.Name)
		}
	case errors.Is(err, driver.ErrTooLarge) && v.short:
		log.Error("a message is too large to be dead-lettered and goes back to its queue: "+
			"let the broker take larger ones, or reject it where there is no dead-letter exchange", "queue", q.Name, "id", v.pub.ID, "error", err)
		return verdict{settle: driver.Nack, delay: time.Second << min(max(v.d.Attempt-1, 0), 6)}
	case errors.Is(err, driver.ErrTooLarge):
		v.short = true
		v.pub.Message.Header = shortHistory(v.pub.Message.Header)
	case v.tries == 0:
		log.Warn("a message could not be dead-lettered; trying again", "queue", q.Name, "error", err)
	}
	return again
}

// nowhere tells of the first that has nowhere to go since one has arrived.
func (x *deadLetters) nowhere(text string, err error) {
	if !x.stuck {
		x.stuck = true
		x.c.cfg.Logger.Warn(text, "queue", x.q.Name, "dead-letter exchange", x.q.DeadLetterExchange, "error", err)
	}
}

// errCircle is the outcome of a dead letter that only queues which it must not
// go to would take. It is dropped.
var errCircle = fmt.Errorf("%w: it would go round for ever", driver.ErrUnroutable)

// deadID is the same for every try to move this message out of this queue,
// also by whoever gets it next, should it not be settled.
func deadID(q *Queue, d *Delivery) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %s", q.Incarnation, d.Seq, d.Message.ID)
	return "dead-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// circle is where a dead letter may not go: it was there before, and nobody has
// rejected it since, so it would go round for ever.
func circle(m *driver.Message, reason Reason) []string {
	if reason == Rejected {
		return nil
	}
	var names []string
	deaths, _ := m.Header[headerDeath].([]any)
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
