package emulate

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

// mover moves messages that somebody holds to exchanges or queues. The hold
// lasts until every target has the message, then it is settled: twice at worst,
// never none. Its owner's goroutine calls step whenever wake receives and when
// the time is over that step returned.
type mover struct {
	c      *conn
	ctx    context.Context // tries begin until it ends
	holder holder
	left   func(*move) // where set, hears of every move that is done with
	// patience, where set, ends tries that take longer: driver.ErrUnconfirmed.
	patience time.Duration
	wake     chan struct{} // cap 1
	idle     chan struct{} // cap 1: one has left, or failed

	mu   sync.Mutex
	open map[*move]struct{}
	turn []*move // where step has something to do
}

// holder is where the messages lie that a mover moves.
type holder interface {
	// holds reports whether the message is held still.
	holds(v *move) bool
	// moved settles it.
	moved(v *move, o driver.Outcome, delay time.Duration)
}

// move is one message on its way; it owns its publishings.
type move struct {
	d       *Delivery
	from    *Queue
	to      *publisher
	message *driver.Message // as it goes; another one where it changes
	id      string          // to deduplicate by: the same for every try, whoever makes it
	avoid   []string        // queues it must not go to
	have    []string        // queues that have it; the mover's mutex guards it
	// judge says what becomes of the move after a try, but for one that the end
	// of the connection ended: nil has to be driver.Ack. It may change where the
	// move goes. It is called on the mover's goroutine.
	judge func(v *move, err error) verdict

	m     *mover
	sent  bool      // and its turn comes when it is resolved; the mover's mutex guards it
	short bool      // a dead letter without the history that made it too large
	tries int       // failed ones
	at    time.Time // the next try
	// try is the last one. Each is a publishing of its own: one that was given up
	// can be on its way still.
	try *driver.Publishing
}

// verdict is what becomes of a move: another try after the time again, or the
// message is settled.
type verdict struct {
	again  time.Duration
	settle driver.Outcome
	delay  time.Duration // of a Nack
}

func (x *mover) init(c *conn, ctx context.Context, h holder) {
	x.c, x.ctx, x.holder = c, ctx, h
	x.wake = make(chan struct{}, 1)
	x.idle = make(chan struct{}, 1)
	x.open = map[*move]struct{}{}
}

// begin moves the message, which keeps its ID.
func (x *mover) begin(v *move) {
	v.m = x
	x.mu.Lock()
	x.open[v] = struct{}{}
	x.mu.Unlock()
	x.later(v)
	signal(x.wake)
}

// Resolved leaves the rest to the mover's goroutine.
func (v *move) Resolved(*driver.Publishing) {
	v.m.later(v)
	signal(v.m.wake)
}

// took notes that a queue has the message: no later try goes there, however
// long the other targets keep it waiting.
func (v *move) took(queue string) {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	if !slices.Contains(v.have, queue) {
		v.have = append(v.have, queue)
	}
}

// taken are the queues that have the message.
func (v *move) taken() []string {
	v.m.mu.Lock()
	defer v.m.mu.Unlock()
	return slices.Clone(v.have)
}

// without leaves out the queues to which the message does not go: errNoOther
// where there is none then.
func (v *move) without(names []string) ([]string, error) {
	have := v.taken()
	if len(have) == 0 && (len(names) == 0 || len(v.avoid) == 0) {
		return names, nil
	}
	names = slices.DeleteFunc(names, func(name string) bool {
		return slices.Contains(v.avoid, name) || slices.Contains(have, name)
	})
	if len(names) == 0 {
		return nil, errNoOther
	}
	return names, nil
}

// step does what there is to do and says how long until there is more.
func (x *mover) step() time.Duration {
	now, wait := time.Now(), time.Hour
	var send []sending
	x.mu.Lock()
	turn := x.turn
	x.turn = nil
	x.mu.Unlock()
	for _, v := range turn {
		switch {
		case v.sent:
			if again, ok := x.outcome(v); ok {
				v.at = now.Add(again)
				wait = min(wait, again)
				x.mu.Lock()
				v.sent = false
				v.tries++
				x.mu.Unlock()
				x.later(v)
				signal(x.idle)
			}
		case now.Before(v.at):
			wait = min(wait, v.at.Sub(now))
			x.later(v)
		case !x.holder.holds(v):
			x.forget(v)
		default:
			v.at = now
			x.mu.Lock()
			v.sent = true
			x.mu.Unlock()
			if len(send) > 0 && send[0].pub != v.to {
				x.send(send)
				send = nil
			}
			v.try = &driver.Publishing{Message: v.message, ID: v.message.ID, Owner: v}
			send = append(send, sending{pub: v.to, publishing: v.try, dedupID: v.id, move: v})
		}
	}
	x.send(send)
	if x.patience > 0 {
		wait = min(wait, x.hurry())
	}
	return wait
}

// hurry ends tries that take too long.
func (x *mover) hurry() time.Duration {
	now, wait := time.Now(), x.patience
	x.mu.Lock()
	var late []*move
	for v := range x.open {
		if !v.sent {
			continue
		}
		if left := v.at.Add(x.patience).Sub(now); left > 0 {
			wait = min(wait, left)
		} else {
			late = append(late, v)
		}
	}
	x.mu.Unlock()
	for _, v := range late {
		v.try.Resolve(driver.ErrUnconfirmed)
	}
	return wait
}

// outcome reports whether, and when, a move is to be tried again; otherwise it
// is done with.
func (x *mover) outcome(v *move) (again time.Duration, ok bool) {
	err := v.try.Err()
	if !errors.Is(err, driver.ErrClosed) {
		o := v.judge(v, err)
		if o.settle == 0 {
			return o.again, true
		}
		x.holder.moved(v, o.settle, o.delay)
	}
	x.forget(v)
	return 0, false
}

func (x *mover) later(v *move) {
	x.mu.Lock()
	x.turn = append(x.turn, v)
	x.mu.Unlock()
}

// send needs the lease like any publisher.
func (x *mover) send(ss []sending) {
	if len(ss) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(x.ctx, LeaseTime)
	defer cancel()
	if err := x.c.lease.start(ctx); err != nil {
		for i := range ss {
			ss[i].resolve(fmt.Errorf("no topology lease: %v", err))
		}
		return
	}
	ss[0].pub.dispatch(ctx, ss, false)
}

func (x *mover) forget(v *move) {
	x.mu.Lock()
	delete(x.open, v)
	x.mu.Unlock()
	if x.left != nil {
		x.left(v)
	}
	signal(x.idle)
}

// drain waits for what is on its way, but not for what has failed and waits to be
// tried again.
func (x *mover) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainTime)
	defer cancel()
	for {
		x.mu.Lock()
		none := true
		for v := range x.open {
			none = none && v.tries > 0 && !v.sent
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

// end gives up the rest: whoever holds them gives them back, and they come
// again. The goroutine that calls step has ended.
func (x *mover) end() {
	x.mu.Lock()
	open := slices.Collect(maps.Keys(x.open))
	x.mu.Unlock()
	for _, v := range open {
		if v.try != nil {
			v.try.Resolve(driver.ErrClosed)
		}
	}
}

const drainTime = 2 * time.Second
