package emulate

import (
	"cmp"
	"errors"
	"slices"
	"time"
)

// round is the janitor's way to one queue that gives up messages by itself.
type round struct {
	q       *Queue
	dead    deadLetters
	next    time.Time // the next sweep
	full    bool      // it waits for what is on its way
	empty   int       // sweeps in a row that found nothing ready
	failed  int       // in a row
	open    map[uint64]*move
	bytes   int         // of the bodies in open
	dropped []*Delivery // moved, and yet to be removed
}

// The bounds of sweeping, and how often it is done. Where only the queue's TTL
// counts its store knows when the next message is over; a message with a time
// of its own, and one that pushes out others, can come at any moment.
const (
	sweepMax    = 100 // messages a sweep
	sweepEvery  = 75 * time.Millisecond
	sweepEmpty  = 600 * time.Millisecond // where nothing is ready
	sweepCalm   = time.Second            // where only the queue's TTL counts: for what is given back
	sweepSoon   = 5 * time.Millisecond   // where clocks disagree
	sweepHold   = 30 * time.Second       // how long Sweep keeps what it returned, where leases do not end
	sweepEach   = 2 * time.Millisecond   // for each queue, so that many share what one process can do
	sweepAtOnce = 50 * time.Millisecond  // the shortest TTL that is worth a sweep of its own
)

// survey takes up changes of the topology.
func (j *janitor) survey() {
	j.mu.Lock()
	changed := j.changed
	j.changed = false
	j.mu.Unlock()
	if !changed {
		return
	}
	st := j.c.topo.current()
	j.busy = false
	rounds := map[string]*round{}
	for _, q := range st.queues {
		j.busy = j.busy || q.tended()
		if !q.swept() {
			continue
		}
		r := j.rounds[q.Incarnation]
		if r == nil {
			r = &round{open: map[uint64]*move{}}
			r.dead.init(j.c, q)
		}
		if r.q != q {
			r.q, r.next = q, time.Time{}
		}
		rounds[q.Incarnation] = r
	}
	j.rounds = rounds
}

// sweep sweeps the queues whose time has come, and says how long until that of
// others. Half of the time is theirs at most.
func (j *janitor) sweep() time.Duration {
	j.mu.Lock()
	for incarnation, at := range j.hints {
		switch r := j.rounds[incarnation]; {
		case r == nil:
			delete(j.hints, incarnation)
		case at.Before(r.next):
			r.next = at
		}
	}
	j.mu.Unlock()
	start := time.Now()
	if d := j.rest.Sub(start); d > 0 {
		return d
	}
	var due []*round
	for _, r := range j.rounds {
		if !r.full && !start.Before(r.next) {
			due = append(due, r)
		}
	}
	for _, r := range due {
		if j.ctx.Err() != nil {
			break
		}
		j.sweepQueue(r)
	}
	now := time.Now()
	j.rest = now.Add(now.Sub(start))
	wait := maxWait
	for _, r := range j.rounds {
		if !r.full {
			wait = min(wait, max(r.next.Sub(now), now.Sub(start)))
		}
	}
	return wait
}

func (j *janitor) sweepQueue(r *round) {
	j.mu.Lock()
	delete(j.hints, r.q.Incarnation)
	j.mu.Unlock()
	ctx, cancel := j.call()
	defer cancel()
	asked := time.Now()
	s, err := j.c.store.Sweep(ctx, r.q, r.room())
	if err != nil {
		if r.failed == 0 && j.ctx.Err() == nil && !errors.Is(err, ErrGone) {
			j.c.cfg.Logger.Warn("what a queue gave up could not be taken; trying again", "queue", r.q.Name, "error", err)
		}
		r.next = time.Now().Add(backoff(r.failed))
		r.failed++
		return
	}
	r.failed = 0
	for _, d := range s.Dead {
		d.until = asked.Add(cmp.Or(j.c.features.Lease, sweepHold))
		if v := r.open[d.Seq]; v != nil {
			v.d = d // it is held anew
			continue
		}
		if i := slices.IndexFunc(r.dropped, func(moved *Delivery) bool { return moved.Seq == d.Seq }); i >= 0 {
			r.dropped[i] = d
			continue
		}
		r.bytes += len(d.Message.Body)
		r.open[d.Seq] = r.dead.move(&j.moves, d, d.Reason)
	}
	r.full = r.room() == 0
	if s.Empty {
		r.empty++
	} else {
		r.empty = 0
	}
	r.next = time.Now().Add(r.pause(s, len(j.rounds), j.c.store.Now()))
}

// pause is the time until the next sweep, where n queues are swept.
func (r *round) pause(s Swept, n int, now time.Time) time.Duration {
	if s.More {
		return 0
	}
	each := time.Duration(n) * sweepEach
	var wait time.Duration
	switch {
	case r.q.expiring || r.q.pushesOut():
		wait = max(sweepEvery, each)
		if r.empty > 0 {
			wait = max(min(wait<<min(r.empty, 8), sweepEmpty), each)
		}
	default:
		wait = max(sweepCalm, 2*each)
	}
	if r.q.TTL > 0 && s.Empty {
		wait = min(wait, max(r.q.TTL, sweepAtOnce, each))
	}
	if !s.Next.IsZero() {
		d := s.Next.Sub(now)
		if d <= 0 {
			d = sweepSoon
		}
		wait = min(wait, d)
	}
	return wait
}

// room is how many more messages of the queue may be on their way.
func (r *round) room() int {
	if r.bytes >= maxAsideBytes {
		return 0
	}
	return min(maxAside-len(r.open)-len(r.dropped), sweepMax)
}

// left hears that a move has ended.
func (r *round) left(v *move) {
	if r.open[v.d.Seq] == v {
		delete(r.open, v.d.Seq)
		r.bytes -= len(v.d.Message.Body)
	}
	r.more()
}

// removed hears that what was moved is gone.
func (r *round) removed() {
	clear(r.dropped)
	r.dropped = r.dropped[:0]
	r.more()
}

// more has the queue swept again once there is room.
func (r *round) more() {
	if r.full && r.room() > 0 {
		r.full, r.next = false, time.Time{}
	}
}
