package amqp

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// A nack is a refusal where a queue that the message may have gone to refuses what
// is beyond its limits. Else nothing refused it: a quorum queue that the channel is
// new to nacks as well for as long as it has no leader, and the message is tried
// again. What is not known of the queue is asked.

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
	// Of anyQueue, where the management API said it: which queues refuse, and what
	// goes where.
	queues map[string]bool
	table  *routing.Table
}

// concerns reports whether an item may have been refused.
func (x refusal) concerns(it *item) bool {
	if x.table == nil {
		return x.yes
	}
	names, err := x.table.Route(nil, it.from.exchange, it.key, it.p.Message.Header)
	return err != nil || slices.ContainsFunc(names, func(name string) bool { return x.queues[name] })
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
	delete(r.queues, anyQueue) // which was said without this one
}

// learned takes in an answer, unless the queue was declared meanwhile.
func (r *refusals) learned(target string, x refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	last, known := r.queues[target]
	switch {
	case x.silent && known && !last.silent:
		last.until = x.until // better than nothing
		r.put(target, last)
	case !last.until.After(x.until):
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

// of is what is known of a target; false where it is to be asked. Of anyQueue also
// what was declared counts where guess is true: where nobody else can tell.
func (r *refusals) of(target string, guess bool) (x refusal, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if target == anyQueue && guess {
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
		k, err := c.kindFrom(ctx, target, managementTime) // the broker does not tell policies
		x = refusal{yes: k.refuses, silent: err != nil}
	case c.management != nil:
		if x = c.management.refusals(ctx); x.silent {
			if guess, known := c.refusals.of(target, true); known {
				x = guess
			}
		}
	}
	x.until = time.Now().Add(refusalTime)
	c.refusals.learned(target, x)
}

// refusals is what all queues of the vhost refuse. Of which messages is asked only
// where one does.
func (m *management) refusals(ctx context.Context) refusal {
	var rows []queueRow
	if err := m.get(ctx, &rows, "queues"); err != nil {
		return refusal{silent: true}
	}
	x := refusal{queues: map[string]bool{}}
	for _, q := range rows {
		if q.refuses() {
			x.yes, x.queues[q.Name] = true, true
		}
	}
	if x.yes {
		if t, err := m.topology(ctx); err == nil {
			for i := range t.Exchanges {
				if e := &t.Exchanges[i]; e.Kind.Custom() { // only RabbitMQ knows along which of its bindings
					e.Kind, e.Args = routing.Fanout, nil
				}
			}
			x.table, _ = routing.NewTable(t) // nil where it has what only RabbitMQ knows
		}
	}
	return x
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
	x, asked := o.c.refusals.of(target, o.c.management == nil)
	it.young = time.Since(s.connected) <= settling
	it.first = s.first
	switch {
	case !refuses:
		o.nacks.wait(*it)
		return false, nil
	case asked:
		return o.verdict(it, x)
	}
	d := doubt{*it, target}
	d.confirm = nil
	o.nacks.doubts = append(o.nacks.doubts, d)
	return false, nil
}

// verdict is what a nack of an item means, by what is known of its target; false
// where it was put by, to be sent again.
func (o *outbox) verdict(it *item, x refusal) (known bool, err error) {
	switch {
	case !x.silent && !x.concerns(it):
		o.nacks.wait(*it)
		return false, nil
	case x.silent && it.young && it.nacked < patientTries && !o.nacks.refusing[it.from.exchange]:
		// Nobody could tell, and that a queue has no leader is likely.
		o.nacks.wait(*it)
		return false, nil
	case !x.silent && o.nacks.again(*it, it.young && !it.first),
		// A connection that has lost none yet rather believes that a queue refuses:
		// other queues would get a copy with each try.
		x.silent && o.nacks.again(*it, o.c.management != nil):
		return false, nil
	}
	return true, refused(*it, driver.ErrRejected)
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
				x, _ := o.c.refusals.of(d.target, o.c.management == nil)
				if known, err := o.verdict(&d.item, x); known {
					judged = append(judged, failure{d.p, err})
				}
			}
		}
		clear(o.nacks.doubts[len(rest):])
		o.nacks.doubts = rest
		o.mu.Unlock()
		for _, f := range judged {
			f.p.Resolve(f.err)
		}
		signal(o.wake) // some may be sent again
	}
}
