package amqp

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// A nack that is the last word is a refusal where a queue that the message may
// have gone to refuses what is beyond its limits. Else nothing refused it: a
// quorum queue that the channel is new to nacks as well for as long as it has no
// leader. What is not known of the queue is asked.

// refusals are what a connection knows of queues that refuse.
type refusals struct {
	mu     sync.Mutex
	queues map[string]refusal // anyQueue: whether there is one in the vhost
	many   int                // with so many, those that are too old are looked for
}

type refusal struct {
	yes    bool
	silent bool      // asked, and not answered
	until  time.Time // when it is asked again
}

const (
	// anyQueue is the target of what goes to an exchange.
	anyQueue = ""
	// refusalTime is for how long an answer is believed.
	refusalTime = 10 * time.Second
	// declaredTime is for how long a declaration is: the queue may end by itself.
	declaredTime = time.Minute
	// manyRefusals is how many are remembered though they may be too old.
	manyRefusals = 1000
)

// declared takes in a queue as this connection has declared it.
func (r *refusals) declared(queue string, refuses bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !refuses {
		delete(r.queues, queue)
		return
	}
	r.put(queue, refusal{yes: true, until: time.Now().Add(declaredTime)})
}

// learned takes in an answer, unless the queue was declared meanwhile.
func (r *refusals) learned(target string, x refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.queues[target].until.After(x.until) {
		r.put(target, x)
	}
}

func (r *refusals) put(target string, x refusal) {
	if r.queues == nil {
		r.queues = map[string]refusal{}
	}
	if len(r.queues) >= max(r.many, manyRefusals) {
		maps.DeleteFunc(r.queues, func(_ string, x refusal) bool { return x.old() })
		r.many = 2 * len(r.queues)
	}
	r.queues[target] = x
}

func (x refusal) old() bool { return time.Now().After(x.until) }

// of is what is known of a target; false where it is to be asked.
func (r *refusals) of(target string) (x refusal, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if target == anyQueue {
		for _, x := range r.queues {
			if x.yes && !x.old() {
				return x, true
			}
		}
	}
	x, known = r.queues[target]
	return x, known && !x.old()
}

// learn asks what a target refuses: the management API of all queues, and the
// broker itself of one.
func (c *Conn) learn(target string) {
	ctx, cancel := context.WithTimeout(c.ctx, 2*managementTime)
	defer cancel()
	x := refusal{silent: true}
	switch {
	case target != anyQueue:
		k, err := c.kindOf(ctx, target)
		x = refusal{yes: k.refuses, silent: err != nil}
	case c.management != nil:
		var rows []queueRow
		err := c.management.get(ctx, &rows, "queues")
		x = refusal{yes: slices.ContainsFunc(rows, queueRow.refuses), silent: err != nil}
	}
	x.until = time.Now().Add(refusalTime)
	c.refusals.learned(target, x)
}

// refusesBy reports that a queue with these arguments, under this policy, refuses
// what is beyond a limit. Without one, a queue that would refuse does not.
func refusesBy(args, policy map[string]any) bool {
	overflow, limited := args[argOverflow], args[argMaxLength] != nil || args[argMaxBytes] != nil
	for field, v := range policy {
		switch field {
		case "overflow":
			if overflow == nil {
				overflow = v
			}
		case "max-length", "max-length-bytes":
			limited = true
		}
	}
	text, _ := overflow.(string)
	return limited && strings.HasPrefix(text, rejectPublish)
}

// doubt is a nacked item of which it is not known yet whether it was refused.
type doubt struct {
	item
	target string
}

// target is the queue that an item goes to, or anyQueue; false for where
// nothing refuses, which is on the way through the delay levels.
func (it *item) target() (string, bool) {
	h := it.p.Message.Header
	switch {
	case it.from.own && it.from.exchange == exchangeIn:
		queue, _ := h[headerQueue].(string)
		return queue, true
	case it.from.own && it.from.exchange != exchangeLost && strings.HasPrefix(it.from.exchange, delayPrefix):
		return "", false
	case it.from.exchange != "" || h["CC"] != nil || h["BCC"] != nil:
		return anyQueue, true
	}
	return it.key, true
}

// nacked is the outcome of an item that was nacked; false where it was put by, to
// be sent again or to be judged.
func (o *outbox) nacked(it *item, s *session) (known bool, err error) {
	if it.forsaken() {
		return true, driver.ErrUnconfirmed // nobody hears it
	}
	if o.prompt {
		return true, driver.ErrRejected
	}
	target, refuses := it.target()
	x, asked := o.c.refusals.of(target)
	it.young = time.Since(s.connected) <= settling
	// A connection that has lost none yet rather believes that a queue refuses:
	// other queues would get a copy with each try.
	if o.nacks.again(*it, it.young && !(s.first && refuses && x.yes)) {
		return false, nil
	}
	switch {
	case !refuses:
		return true, errNoLeader
	case asked:
		return true, it.verdict(x)
	}
	d := doubt{*it, target}
	d.confirm = nil
	o.nacks.doubts = append(o.nacks.doubts, d)
	return false, nil
}

var errNoLeader = fmt.Errorf("%w: a queue did not take it, which is not known to refuse anything: it may have no leader for now", driver.ErrUnconfirmed)

// verdict is what the last nack of an item means. Where nobody could tell, it is
// that of a queue without a leader while that is likely.
func (it *item) verdict(x refusal) error {
	if x.yes || x.silent && !it.young {
		return refused(*it, driver.ErrRejected)
	}
	return errNoLeader
}

// judge asks about what is in doubt and resolves it, until there is nothing.
func (o *outbox) judge() {
	for {
		asked := map[string]bool{}
		o.mu.Lock()
		for _, d := range o.nacks.doubts {
			asked[d.target] = true
		}
		o.nacks.judging = len(asked) > 0
		o.mu.Unlock()
		if len(asked) == 0 {
			return
		}
		for target := range asked {
			o.c.learn(target)
		}
		var judged []failure
		o.mu.Lock()
		rest := o.nacks.doubts[:0]
		for _, d := range o.nacks.doubts {
			if !asked[d.target] {
				rest = append(rest, d)
			} else if !d.forsaken() {
				x, _ := o.c.refusals.of(d.target)
				judged = append(judged, failure{d.p, d.verdict(x)})
			}
		}
		clear(o.nacks.doubts[len(rest):])
		o.nacks.doubts = rest
		o.mu.Unlock()
		for _, f := range judged {
			f.p.Resolve(f.err)
		}
	}
}
