package chaos

import (
	"time"
)

// slack is how long after a fault its consequences may show: calls that time out,
// elections that it has begun.
const slack = 4 * time.Second

// A finding is what the checks counted.
type finding struct {
	confirmed, rejected, unknown int
	open                         int // of clients that were killed, or told to end
	duplicates                   int // deliveries after one that was settled with success
	ordered, held, attempts      int // how often each check could say something
}

// check finds what breaks a promise. It looks only where nothing else explains it:
// what the network did to a message is not seen from outside, so messages that a
// fault may have touched are left to the check of losses, which has no exceptions.
func (r *record) check() finding {
	var f finding
	for _, id := range r.lost() {
		r.violation("lost: %s was confirmed and never delivered", id)
	}
	for _, m := range r.messages {
		switch m.outcome {
		case confirmed:
			f.confirmed++
		case rejected:
			f.rejected++
			if qs := routes(m.key); len(qs) == 1 && len(r.deliveries[qs[0]][m.id]) > 0 {
				r.violation("refused, and delivered all the same: %s", m.id)
			}
		case unknown:
			f.unknown++
		case unsent, "":
			f.open++
		default:
			r.violation("the outcome of %s is %s", m.id, m.outcome)
		}
	}
	for queue, messages := range r.deliveries {
		for id, list := range messages {
			m := r.messages[id]
			if m == nil {
				r.violation("%s delivered %s, which nobody has published", queue, id)
				continue
			}
			done := false
			for i, d := range list {
				if done {
					f.duplicates++
				}
				done = done || d.act != actNack && !d.failed && !d.settled.IsZero()
				r.checkAttempt(&f, queue, m, list, i)
				if i > 0 {
					r.checkHold(&f, queue, m, list[i-1], d)
				}
			}
		}
	}
	for _, t := range r.clients {
		for queue, ids := range t.order {
			if queue == "a" || queue == "b" { // those with one consumer
				r.checkOrder(&f, queue, t, ids)
			}
		}
	}
	return f
}

// touched is whether a fault that can do something to what is on its way fell into
// the time from from to to; or, where kills count too, a client was killed.
func (r *record) touched(from, to time.Time, kills bool) bool {
	for _, f := range r.faults {
		if f.kind.harmless() {
			continue
		}
		if f.begun.Before(to) && (f.over.IsZero() || f.over.Add(slack).After(from)) {
			return true
		}
	}
	if kills {
		for _, t := range r.clients {
			if t.name[0] == 'c' && !t.ended.IsZero() && t.ended.Before(to) && t.ended.Add(slack+lease).After(from) {
				return true
			}
		}
	}
	return false
}

// checkAttempt: 1 for what comes for the first time, one more after a Nack, and
// never more than there were deliveries.
func (r *record) checkAttempt(f *finding, queue string, m *message, list []*delivery, i int) {
	d := list[i]
	if !r.countsReturned && d.attempt > i+1 && !r.touched(m.begun, d.at, true) {
		r.violation("attempt %d of %s in %s at its delivery number %d", d.attempt, m.id, queue, i+1)
	}
	if d.attempt < 1 {
		r.violation("attempt %d of %s in %s", d.attempt, m.id, queue)
	}
	if i == 0 || list[i-1].act != actNack || list[i-1].failed || m.ended.IsZero() || r.touched(m.begun, d.at, true) {
		return
	}
	f.attempts++
	want := list[i-1].attempt + 1
	if d.attempt < want || d.attempt > want && !r.countsReturned {
		r.violation("attempt %d of %s in %s after a nack of attempt %d", d.attempt, m.id, queue, list[i-1].attempt)
	}
}

// checkHold: d must not come while its predecessor is held.
func (r *record) checkHold(f *finding, queue string, m *message, before, d *delivery) {
	end := before.settled
	if t := r.clients[before.client]; end.IsZero() && !t.ended.IsZero() {
		end = t.ended
	}
	f.held++
	if !end.IsZero() && !d.at.Before(end) || r.touched(m.begun, d.at, false) {
		return
	}
	for _, lost := range r.clients[before.client].lost {
		if lost.After(before.at.Add(-slack)) && lost.Before(d.at) {
			return
		}
	}
	r.violation("held twice: %s in %s by %s since %v, and by %s from %v", m.id, queue, before.client, before.at, d.client, d.at)
}

// checkOrder: what one publisher published comes in its order.
func (r *record) checkOrder(f *finding, queue string, t *tally, ids []string) {
	last := map[string]*message{}
	for _, id := range ids {
		list := r.deliveries[queue][id]
		m, d := r.messages[id], list[0]
		if m == nil || d.client != t.name || d.redelivered || d.attempt > 1 || m.ended.IsZero() || r.touched(m.begun, d.at, true) {
			continue
		}
		if before := last[m.client]; before != nil {
			f.ordered++
			if before.seq > m.seq && len(list) == 1 {
				r.violation("order: %s came to %s after %s", m.id, queue, before.id)
			}
		}
		if before := last[m.client]; before == nil || before.seq < m.seq {
			last[m.client] = m
		}
	}
}
