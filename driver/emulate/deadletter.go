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
	stuck bool // the newest did not arrive; the mover's
}

func (x *deadLetters) init(c *conn, q *Queue) {
	x.c, x.q = c, q
	x.to = c.publisher(q.DeadLetterExchange, false)
}

// move begins to move a message.
func (x *deadLetters) move(m *mover, d *Delivery, reason Reason) *move {
	letter := deadMessage(&d.Delivery, x.q, reason, x.c.store.Now())
	v := &move{
		d: d, from: x.q, to: x.to, message: letter, judge: x.judge,
		id:    deadID(x.q, d),
		avoid: circle(letter, reason),
	}
	m.begin(v)
	return v
}

// judge has a dead letter wait where nothing takes it, as RabbitMQ's
// at-least-once does, but for those that would go round. What a limit pushed out
// does not wait for a way that is not there: the queue would have no limit.
func (x *deadLetters) judge(v *move, err error) verdict {
	log, q := x.c.cfg.Logger, x.q
	nowhere := errors.Is(err, driver.ErrUnroutable) || errors.Is(err, driver.ErrNotFound)
	switch {
	case err == nil:
		x.stuck = false
		return verdict{settle: driver.Ack}
	case errors.Is(err, errNoOther):
		return verdict{settle: driver.Ack}
	case nowhere && q.BestEffortDeadLetter:
		x.waits("a dead letter had nowhere to go and was dropped, as BestEffortDeadLetter says", err)
		return verdict{settle: driver.Ack}
	case nowhere && v.d.Reason == Overflown:
		x.waits("a message that the queue's limit pushed out had nowhere to go and was dropped: "+
			"declare its dead-letter exchange and bind a queue to it", err)
		return verdict{settle: driver.Ack}
	case nowhere:
		x.waits("a dead letter has nowhere to go and is kept until a queue takes it: "+
			"declare its exchange and bind a queue to it, or set BestEffortDeadLetter", err)
	case errors.Is(err, driver.ErrTooLarge) && v.short:
		log.Error("a message is too large to be dead-lettered and goes back to its queue: "+
			"let the broker take larger ones, or reject it where there is no dead-letter exchange", "queue", q.Name, "id", v.message.ID, "error", err)
		return verdict{settle: driver.Nack, delay: time.Second << min(max(v.d.Attempt-1, 0), 6)}
	case errors.Is(err, driver.ErrTooLarge):
		short := *v.message
		short.Header = shortHistory(short.Header)
		v.short, v.message = true, &short
		return verdict{again: backoff(v.tries)}
	case v.tries == 0:
		x.waits("a message could not be dead-lettered; trying again", err)
	}
	if x.aside != nil && !x.aside(v.d) && v.tries == 0 {
		log.Error("too many dead letters wait for a queue that takes them: this one counts in the subscriber's prefetch", "queue", q.Name)
	}
	return verdict{again: backoff(v.tries)}
}

// waits tells of the first that does not arrive since one has.
func (x *deadLetters) waits(text string, err error) {
	if !x.stuck {
		x.stuck = true
		x.c.cfg.Logger.Warn(text, "queue", x.q.Name, "dead-letter exchange", x.q.DeadLetterExchange, "error", err)
	}
}

// errNoOther is the outcome of a move where only queues that have the message,
// or to which it must not go, would take it. It is done.
var errNoOther = fmt.Errorf("%w: no other queue takes it", driver.ErrUnroutable)

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
