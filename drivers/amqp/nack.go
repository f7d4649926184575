package amqp

import "time"

// A nack says that a queue did not handle a message. As a rule that is the
// queue's limit (x-overflow=reject-publish), and a refusal. But a quorum queue
// nacks as well while it has no leader, which after a restart of the broker is
// so for a moment: on a connection that is not older than settling, a nacked
// message is tried again before it is judged what the nack means. Queues that
// have taken the message, of several, get a copy with each try.
const (
	settling  = 10 * time.Second
	maxTries  = 4
	nackPause = 100 * time.Millisecond // before the second try, then twice that, and so on
)

// A queue of 3.10 can fall into refusing everything on a channel; so many
// refusals in a row, over so long, make a new one. Where that did not help it
// takes twice as long the next time.
const (
	maxNacks     = 50
	nackPeriod   = time.Second
	maxDoublings = 6
	// drainTime is how long the channel is kept for what is in flight on it:
	// that would be sent twice.
	drainTime = 5 * time.Second
)

// nacks is what an outbox knows of nacks; its mutex guards it.
type nacks struct {
	later    []item          // nacked, to be sent again when due
	doubts   []doubt         // nacked for good, to be judged
	judging  bool            // somebody does
	refusing map[string]bool // exchanges whose messages were nacked to the last try
	row      int             // nacks in a row
	since    time.Time       // the first of them
	reopened int             // channels made anew since the last that was no nack
	drain    time.Time       // nothing is sent, since the channel is to be closed by then
}

// count takes in a confirmation.
func (n *nacks) count(exchange string, acked bool) {
	switch {
	case acked:
		n.row, n.reopened = 0, 0
		if len(n.refusing) > 0 {
			delete(n.refusing, exchange)
		}
	default:
		if n.row++; n.row == 1 {
			n.since = time.Now()
		}
	}
}

// again puts a nacked item by, to be sent again; false where it is refused.
// young says that the queues may still be without a leader.
func (n *nacks) again(it item, young bool) bool {
	exchange := it.from.exchange
	if it.forsaken() || n.refusing[exchange] || it.nacked == 0 && !young {
		return false
	}
	if it.nacked++; it.nacked >= maxTries {
		if n.refusing == nil {
			n.refusing = map[string]bool{}
		}
		n.refusing[exchange] = true
		return false
	}
	// Of several queues one may have taken it.
	_, cc := it.p.Message.Header["CC"]
	_, bcc := it.p.Message.Header["BCC"]
	it.partly = exchange != "" || cc || bcc
	it.confirm, it.returned = nil, false
	it.due = time.Now().Add(nackPause << (it.nacked - 1))
	n.later = append(n.later, it)
	return true
}

// take returns what is due, and when the next is; zero for nothing.
func (n *nacks) take(now time.Time) (due []item, next time.Time) {
	kept := n.later[:0]
	for _, it := range n.later {
		switch {
		case !it.due.After(now):
			due = append(due, it)
			continue
		case next.IsZero() || it.due.Before(next):
			next = it.due
		}
		kept = append(kept, it)
	}
	clear(n.later[len(kept):])
	n.later = kept
	return due, next
}

// stuck reports that the channel refuses everything.
func (n *nacks) stuck() bool {
	return n.row >= maxNacks && time.Since(n.since) > nackPeriod<<min(n.reopened, maxDoublings)
}
