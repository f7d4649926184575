package amqp

import (
	"slices"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// ended takes in the end of the session: err is the channel's error, nil when
// the connection was lost. What is unresolved goes back to the queue's head,
// but for what the error is about.
func (o *outbox) ended(err *amqp091.Error) {
	o.sweep()
	o.mu.Lock()
	s := o.session
	o.session = nil
	if s == nil {
		o.mu.Unlock()
		return
	}
	if !s.conn.IsClosed() && o.next != nil && o.next.conn == s.conn {
		o.next = &session{conn: s.conn, connected: s.connected, first: s.first, wire: s.wire}
		if s.hopped { // the next one is new to its queues, as that of a new connection
			o.next.connected, o.next.first = time.Now(), false
		}
	}
	var back []item
	for i := range o.flight {
		if it := o.flight[i]; it.confirm != nil {
			o.land(&o.flight[i])
			it.confirm = nil
			back = append(back, it)
		}
	}
	o.flight = nil
	o.solo = false
	back, guilty, careful := blame(err, back)
	// Only now: the error may be about one that its caller has given up on.
	back, guilty = awaitedOnly(back), awaitedOnly(guilty)
	for i := range back {
		back[i].tried = true
	}
	if careful || o.careful > 0 {
		o.careful += len(back)
	}
	o.queue = append(lateLast(back), o.queue...)
	o.mu.Unlock()
	for _, it := range guilty {
		it.tried = (it.tried || it.partly) && !intrinsic(err)
		it.p.Resolve(refused(it, wrap(lacking(writing, err))))
	}
	signal(o.wake)
}

// soloTime is how long the others wait for a message that goes alone. One that
// ends its channel or connection does so at once; one that is never confirmed
// must not hold up every publisher.
const soloTime = 3 * time.Second

// hurry ends the wait for what goes alone when it has taken too long; else it
// returns when that will be, zero for nothing to wait for.
func (o *outbox) hurry(now time.Time) time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.solo || len(o.flight) == 0 {
		return time.Time{}
	}
	if now.Before(o.soloEnd) {
		return o.soloEnd
	}
	o.careful, o.solo = 0, false
	for i := range o.flight {
		o.flight[i].late = true
	}
	return time.Time{}
}

// lateLast puts what was late behind the rest: before it, it would keep them
// from going alone again, and the guilty one from being found.
func lateLast(items []item) []item {
	slices.SortStableFunc(items, func(a, b item) int {
		switch {
		case a.late == b.late:
			return 0
		case b.late:
			return -1
		}
		return 1
	})
	return items
}

func awaitedOnly(items []item) []item {
	kept := items[:0]
	for _, it := range items {
		if !it.forsaken() {
			kept = append(kept, it)
		}
	}
	return kept
}

// blame says which of the items that were in flight the session's end is about,
// and whether the rest is to be sent again one at a time.
func blame(err *amqp091.Error, items []item) (rest, guilty []item, careful bool) {
	switch {
	case soft(err):
		return attribute(err, items)
	case !hard(err):
		return items, nil, false
	}
	if len(items) == 1 {
		if items[0].deaths++; items[0].deaths >= maxDeaths {
			return nil, items, false
		}
	}
	return items, nil, true
}

// maxDeaths is with how many connections a message goes down, alone, until it
// is given up, so that the others get through.
const maxDeaths = 3

// hard reports an error that a message may have brought upon its connection.
func hard(err *amqp091.Error) bool {
	if err == nil || !err.Server {
		return false
	}
	switch err.Code {
	case amqp091.FrameError, amqp091.SyntaxError, amqp091.CommandInvalid, amqp091.ChannelError, amqp091.UnexpectedFrame, amqp091.NotImplemented, amqp091.InternalError:
		return true
	}
	return false
}

// soft reports an error that a message brought upon its channel.
func soft(err *amqp091.Error) bool {
	if err == nil || !err.Server {
		return false
	}
	switch err.Code {
	case amqp091.ContentTooLarge, amqp091.AccessRefused, amqp091.NotFound, amqp091.ResourceLocked, amqp091.PreconditionFailed:
		return !nodeDown(err)
	}
	return false
}

// intrinsic reports an error about what the message is and who sends it, which
// any try before has met as well: none was stored.
func intrinsic(err *amqp091.Error) bool {
	return err.Code == amqp091.ContentTooLarge || err.Code == amqp091.PreconditionFailed && (strings.Contains(err.Reason, "user_id") || strings.Contains(err.Reason, "message size"))
}

// attribute finds, in all that was in flight, the items that a channel error is
// about. Where it cannot, the items are to be sent again one at a time.
func attribute(err *amqp091.Error, items []item) (rest, guilty []item, careful bool) {
	if len(items) == 1 {
		return nil, items, false
	}
	var exchange string
	switch err.Code {
	case amqp091.NotFound:
		exchange = between(err.Reason, "no exchange '", "' in vhost")
	case amqp091.AccessRefused:
		exchange = between(err.Reason, "access to exchange '", "' in vhost")
	}
	last := -1
	for i, it := range items {
		if exchange != "" && it.from.exchange == exchange {
			last = i
		}
	}
	if last < 0 {
		return items, nil, true
	}
	for i, it := range items {
		// Only the last one to the exchange is known not to be stored: those
		// before it may have been, while the exchange was there, or allowed.
		switch {
		case i == last:
			guilty = append(guilty, it)
		case err.Code == amqp091.AccessRefused && it.from.exchange == exchange:
			it.tried = true
			guilty = append(guilty, it)
		default: // to a vanished exchange too: it is looked up before
			rest = append(rest, it)
		}
	}
	return rest, guilty, false
}

func between(s, before, after string) string {
	_, s, ok := strings.Cut(s, before)
	if i := strings.LastIndex(s, after); ok && i >= 0 {
		return s[:i]
	}
	return ""
}
