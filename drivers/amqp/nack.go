package amqp

import "time"

// A nack says that a queue did not handle a message. As a rule that is the
// queue's limit (x-overflow=reject-publish), and a refusal. But a quorum queue
// that the channel is new to nacks as well while it has no leader, which after
// the loss of a node, or a restart of the broker, is so for a moment. Where no
// queue of the message refuses it is tried again until nobody waits for it. Where
// one does, it is tried again some times if the channel is not older than settling.
// Queues that have taken the message, of several, get a copy with each try.
const (
	settling  = 10 * time.Second
	maxTries  = 4
	nackPause = 100 * time.Millisecond // before the second try, then twice that, and so on
	// steadyPause is the longest for the first patientTries, which take about
	// settling; a queue that has no leader for longer is asked ever more rarely.
	steadyPause  = time.Second
	patientTries = 12
	longPause    = 30 * time.Second
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
	hop      hop
	drain    time.Time // nothing is sent, since the channel is to be closed by then
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
	n.put(it)
	return true
}

// wait puts a nacked item by that nothing refuses; the channel is to be changed
// before the next try.
func (n *nacks) wait(it item) {
	it.nacked = min(it.nacked+1, 100)
	n.hop.want(time.Now())
	n.put(it)
}

// put puts an item by until its next try.
func (n *nacks) put(it item) {
	// Of several queues one may have taken it.
	_, cc := it.p.Message.Header["CC"]
	_, bcc := it.p.Message.Header["BCC"]
	it.partly = it.from.exchange != "" || cc || bcc
	it.confirm, it.returned = nil, false
	it.due = time.Now().Add(pauseAfter(int(it.nacked)))
	n.later = append(n.later, it)
}

// pauseAfter is the pause after so many nacks.
func pauseAfter(nacked int) time.Duration {
	if nacked <= patientTries {
		return min(nackPause<<(nacked-1), steadyPause)
	}
	return min(steadyPause<<min(nacked-patientTries, 10), longPause)
}

// A hop is the change to another channel on the same connection. RabbitMQ notes
// which node leads a queue when a channel first publishes to it, and where that
// node is dead it nacks on that channel until the node is back, whoever leads.
type hop struct {
	wanted bool
	untold bool      // that it is wanted for the first time in a while
	last   time.Time // that it was wanted
	done   int       // since it was not for a while
	next   time.Time // the earliest time for one
	hold   time.Time // nothing is sent until then, so that nothing is in flight
	missed int       // 1 where the last one was given up
}

// holdTime is how long the others wait for a hop: what is in flight would be sent
// twice. Where that was too short, as on a slow broker, the next try is on the same
// channel, and waits twice as long before it; what is in flight then hangs as well,
// and is sent twice.
const holdTime = 250 * time.Millisecond

func (h *hop) want(now time.Time) {
	if now.Sub(h.last) > settling {
		h.done, h.missed, h.next, h.untold = 0, 0, time.Time{}, true
	}
	h.wanted, h.last = true, now
}

// due reports whether it is time for one.
func (h *hop) due(now time.Time) bool { return h.wanted && !now.Before(h.next) }

// begin begins the wait for nothing to be in flight.
func (h *hop) begin(now time.Time) { h.hold = now.Add(holdTime << h.missed) }

// miss is whether to give one up, since the wait for what is in flight is over.
func (h *hop) miss(now time.Time) bool {
	if !now.After(h.hold) || h.missed > 0 {
		return false
	}
	h.missed++
	h.over(now)
	return true
}

// over ends one, done or not; the next comes later.
func (h *hop) over(now time.Time) {
	h.wanted, h.hold = false, time.Time{}
	h.done = min(h.done+1, patientTries)
	h.next = now.Add(pauseAfter(h.done) / 2)
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

// open reports that there is no reason to hold back what is to be sent.
func (n *nacks) open() bool { return n.drain.IsZero() && n.hop.hold.IsZero() }

// stuck reports that the channel refuses everything.
func (n *nacks) stuck() bool {
	return n.row >= maxNacks && time.Since(n.since) > nackPeriod<<min(n.reopened, maxDoublings)
}
