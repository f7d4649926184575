package oracle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// What is at most this long is short: the player waits until it is over before
// it looks at anything.
const short = 500 * time.Millisecond

// margin is how much longer than what is short the player waits.
const margin = 120 * time.Millisecond

// delayed is how long the reference waits for what was delayed to arrive, beyond
// its delay, in terms of its quiet time: on RabbitMQ it passes several queues.
func (p *player) delayed() time.Duration { return 40 * p.quiet }

// watched is the least Queue.Expires of a queue that is looked at after each
// step: on RabbitMQ a look is a use.
const watched = time.Minute

// unroutable is the queue that takes delayed messages that no queue takes.
const unroutable = driver.UnroutableQueue

// A player runs one script on one client. The reference's player waits until
// nothing moves any more, each led player until it has what the reference had.
type player struct {
	ctx    context.Context
	c      client
	s      Script
	known  *tally        // of what was let pass
	user   string        // of the RabbitMQ connection
	quiet  time.Duration // for how long nothing must have moved
	waited time.Duration // led: how long to wait for what the reference had

	queues map[string]routing.Queue // that have been declared
	owner  map[string]int           // of exclusive ones: the connection
	subs   map[string]*taking
	seen   map[string]bool // queue and identity of what was handed out
	taken  map[string]bool // queues that had a subscriber, which may have given back

	racing   time.Duration // until which time after now something is under way by itself
	shortTTL bool          // a message with a short time to live was published
}

// taking is an open subscription.
type taking struct {
	subscription
	on    int
	queue string
	held  []*received
}

func newPlayer(ctx context.Context, c client, s Script, user string, known *tally) *player {
	return &player{ctx: ctx, c: c, s: s, user: user, known: known, queues: map[string]routing.Queue{}, owner: map[string]int{}, subs: map[string]*taking{}, seen: map[string]bool{}, taken: map[string]bool{}}
}

// errRacy says that a script's outcome would not be determined.
var errRacy = errors.New("the script races against a time to live")

// record plays a script as the reference.
func (p *player) record() ([]Step, error) {
	var steps []Step
	for i, op := range p.s.Ops {
		if err := p.racy(op); err != nil {
			return nil, fmt.Errorf("operation %d: %w", i, err)
		}
		var rest []State
		if p.calm(op) {
			var err error
			if rest, err = p.settled(p.calmness(Wait{})); err != nil {
				return nil, fmt.Errorf("before operation %d, %s: %w", i, op.name(), err)
			}
		}
		step := op.do(p, nil)
		step.Rest = rest
		p.moved(op, step)
		if p.racing == 0 && !step.Skipped && !still(op) {
			after, err := p.settled(p.calmness(op))
			if err != nil {
				return nil, fmt.Errorf("operation %d, %s: %w", i, op.name(), err)
			}
			step.After = after
		}
		steps = append(steps, step)
		if p.ctx.Err() != nil {
			return nil, p.ctx.Err()
		}
	}
	return steps, nil
}

// racy refuses what a time to live and the speed of the script decide: a
// message with a short one where a subscriber has room.
func (p *player) racy(op Op) error {
	publish, ok := op.(Publish)
	if !ok {
		if s, ok := op.(Subscribe); ok {
			if ttl := p.queues[s.Queue].TTL; ttl > 0 && ttl <= short {
				return errRacy
			}
		}
		return nil
	}
	for _, m := range publish.Messages {
		if m.TTL > 0 && m.TTL <= short && len(p.subs) > 0 {
			return errRacy
		}
	}
	return nil
}

// calm waits, before an operation that looks at something or comes behind what
// is under way, until what is short is over. It reports whether it had to.
func (p *player) calm(op Op) bool {
	switch op.(type) {
	case Declare, Bind, Unbind:
		return false
	}
	if p.racing == 0 {
		return false
	}
	pause(p.ctx, p.racing+margin)
	p.racing = 0
	return true
}

// still reports whether an operation leaves the queues as they are, so that
// there is nothing to look at.
func still(op Op) bool {
	switch op.(type) {
	case Declare, Bind, Unbind, Inspect, Receive:
		return true
	}
	return false
}

// moved notes for how long an operation leaves something under way.
func (p *player) moved(op Op, step Step) {
	if step.Skipped {
		return
	}
	var chain time.Duration // a message may expire in one queue after another
	for _, q := range p.queues {
		if q.TTL > 0 && q.TTL <= short {
			chain += q.TTL
		}
	}
	switch op := op.(type) {
	case Publish:
		ttl := time.Duration(0)
		for _, m := range op.Messages {
			if m.TTL <= short {
				ttl = max(ttl, m.TTL)
			}
			if m.TTL > 0 {
				p.shortTTL = true
			}
		}
		p.racing = max(p.racing, ttl+chain)
	case Settle, Close, Disconnect:
		p.racing = chain
	}
}

// calmness is for how long nothing must have moved after an operation: dead
// letters can take their time, during which they are nowhere to be seen.
func (p *player) calmness(op Op) time.Duration {
	switch o := op.(type) {
	case Settle:
		if o.Outcome == Ack {
			return p.quiet
		}
	case Close, Wait, Publish, Disconnect, AwaitGone:
	default:
		return p.quiet
	}
	for _, q := range p.queues {
		if q.DeadLetterExchange != "" {
			return 8 * p.quiet
		}
	}
	return p.quiet
}

// settled waits until nothing has moved for a while, and says what stands.
func (p *player) settled(quiet time.Duration) ([]State, error) {
	last, err := p.states()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	since := began
	for time.Since(since) < quiet || p.haunted(last) && time.Since(began) < 80*p.quiet {
		pause(p.ctx, p.quiet/3)
		now, err := p.states()
		if err != nil {
			return nil, err
		}
		if !slices.Equal(now, last) {
			last, since = now, time.Now()
		}
		if p.ctx.Err() != nil {
			return nil, p.ctx.Err()
		}
	}
	return last, nil
}

// haunted reports whether a queue has consumers that are closed: busy quorum
// queues forget them late.
func (p *player) haunted(states []State) bool {
	open := map[string]int{}
	for _, t := range p.subs {
		open[t.queue]++
	}
	return slices.ContainsFunc(states, func(s State) bool { return s.Consumers > open[s.Queue] })
}

func (p *player) states() (states []State, err error) {
	for _, name := range slices.Sorted(maps.Keys(p.queues)) {
		q := p.queues[name]
		if q.Expires > 0 && q.Expires < watched {
			continue
		}
		s, err := p.state(q)
		if err != nil {
			return nil, err
		}
		states = append(states, s)
	}
	return states, nil
}

func (p *player) state(q routing.Queue) (State, error) {
	ready, consumers, err := p.c.count(p.ctx, p.owner[q.Name], q)
	if errors.Is(err, polymq.ErrNotFound) {
		return State{Queue: q.Name, Absent: true}, nil
	}
	return State{Queue: q.Name, Ready: ready, Consumers: p.consumers(q, consumers)}, err
}

// consumers is how many to compare.
func (p *player) consumers(q routing.Queue, n int) int {
	if q.SingleActiveConsumer && !p.s.Classic && n > 1 {
		p.known.add(knownActive, 1)
		return 1
	}
	return n
}

// await is patient until the states are as wanted, and returns the last. Again and
// again it asks only for a queue that is not so yet, then for all once more.
func (p *player) await(want []State) ([]State, error) {
	wait := 2 * time.Millisecond
	end := time.Now().Add(p.waited)
	over := func() bool { return time.Now().After(end) || p.ctx.Err() != nil }
	for {
		states, err := p.states()
		if err != nil || slices.Equal(states, want) || over() {
			return states, err
		}
		for i, w := range want {
			for states[i] != w && !over() {
				pause(p.ctx, wait)
				wait = min(wait*3/2, 30*time.Millisecond)
				if states[i], err = p.state(p.queues[w.Queue]); err != nil {
					return states, err
				}
			}
		}
	}
}

// clean removes what a script has made.
func (p *player) clean() error {
	var errs []error
	for _, t := range p.subs {
		errs = append(errs, t.close(p.ctx))
	}
	for name := range p.queues {
		err := p.c.deleteQueue(p.ctx, p.owner[name], name, polymq.DeleteOptions{})
		errs = append(errs, err)
	}
	if p.s.Driver {
		if _, err := p.c.purge(p.ctx, 0, unroutable); err != nil && !errors.Is(err, polymq.ErrNotFound) {
			errs = append(errs, err)
		}
	}
	exchanges := map[string]bool{}
	for _, op := range p.s.Ops {
		if d, ok := op.(Declare); ok {
			for _, x := range d.Topology.Exchanges {
				exchanges[x.Name] = true
			}
		}
	}
	for name := range exchanges {
		errs = append(errs, p.c.deleteExchange(p.ctx, 0, name, polymq.DeleteOptions{}))
	}
	return errors.Join(errs...)
}
