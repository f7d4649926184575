package oracle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// A judge compares what came of one script with the reference's record.
type judge struct {
	backend string
	driver  bool            // the reference is the amqp driver
	classic bool            // its queues are classic ones
	broker  [2]int          // the version of RabbitMQ
	taken   map[string]bool // queues that had a subscriber
	known   *tally          // of the differences that it let pass
}

// returnsLast: what a subscriber gives back comes behind the others, so that
// others than the reference's are prefetched and given back as well.
func (j judge) returnsLast() bool { return j.backend == "amqp" && !j.classic }

// follow plays a script led by the reference's record, and returns the first
// difference, nil for none.
func (p *player) follow(record []Step, j judge) *Difference {
	j.taken = p.taken
	for i, op := range p.s.Ops {
		want := record[i]
		differ := func(what, got, want string) *Difference {
			return &Difference{Op: i, What: what, Want: want, Got: got}
		}
		stands := func(when string, want []State) *Difference {
			if want == nil {
				return nil
			}
			is, err := p.await(want)
			if err != nil {
				return differ("looking at the queues", err.Error(), "")
			}
			for k, w := range want {
				if is[k] != w {
					return differ("what stands "+when, is[k].String(), w.String())
				}
			}
			return nil
		}
		p.calm(op)
		if d := stands("before it", want.Rest); d != nil {
			return d
		}
		if want.Skipped {
			continue
		}
		step := op.do(p, &want)
		p.moved(op, step)
		if what, got, want := j.compare(op, step, want); what != "" {
			return differ(what, got, want)
		}
		if d := stands("afterwards", want.After); d != nil {
			return d
		}
	}
	return nil
}

// A Difference is the first that a run showed.
type Difference struct {
	Op        int
	What      string
	Got, Want string
}

func (d *Difference) String() string {
	return fmt.Sprintf("operation %d: %s: got %s, want %s", d.Op, d.What, orNothing(d.Got), orNothing(d.Want))
}

func orNothing(s string) string {
	if s == "" {
		return "nothing"
	}
	return s
}

// compare says what of a step is not as wanted; "" where all of it is, but for
// what is known.
func (j judge) compare(op Op, got, want Step) (what, is, should string) {
	if _, ok := op.(Receive); ok || len(got.Errs) == len(want.Errs) {
		if what, is, should := j.deliveries(got, want); what != "" {
			return what, is, should
		}
	}
	if got.Skipped {
		return "what it is about", "not there", "there"
	}
	if !slices.Equal(got.Errs, want.Errs) {
		if _, ok := op.(Settle); ok && gone(got.Errs, want.Errs) {
			j.known.add(knownSettleGone, 1)
		} else {
			return "errors", fmt.Sprintf("%q", got.Errs), fmt.Sprintf("%q", want.Errs)
		}
	}
	switch {
	case got.N != want.N:
		return "count", fmt.Sprint(got.N), fmt.Sprint(want.N)
	case got.Info != want.Info:
		return "Inspect", fmt.Sprintf("%+v", got.Info), fmt.Sprintf("%+v", want.Info)
	case !slices.Equal(got.Settled, want.Settled):
		return "settled", fmt.Sprintf("%q", got.Settled), fmt.Sprintf("%q", want.Settled)
	}
	return "", "", ""
}

// gone reports whether errors of settling differ only in that a hold was lost.
func gone(got, want []string) bool {
	if len(got) != len(want) {
		return false
	}
	for i := range got {
		if got[i] != want[i] && (got[i] != "lost" || want[i] != "") {
			return false
		}
	}
	return true
}

func (j judge) deliveries(got, want Step) (what, is, should string) {
	ids := func(ds []Delivered) (ids []string) {
		for _, d := range ds {
			ids = append(ids, d.identity())
		}
		return ids
	}
	a, b := ids(got.Delivered), ids(want.Delivered)
	if slices.Contains(want.Errs, "not found") && len(a) < len(b) {
		j.known.add(knownSentGone, 1)
		return "", "", ""
	}
	if !slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))) {
		return "messages", list(a), list(b)
	}
	if !slices.Equal(a, b) {
		if why := j.reordered(a, b, got, want); why == "" {
			return "order", list(a), list(b)
		} else {
			j.known.add(why, 1)
		}
	}
	for i, id := range b {
		d := got.Delivered[slices.Index(a, id)]
		a[slices.Index(a, id)] = "\x00" // an identity may come twice
		if field, is, should := j.differs(d, want.Delivered[i], want.Before[i]); field != "" {
			return fmt.Sprintf("%s of message %s", field, id), is, should
		}
	}
	return "", "", ""
}

func list(ids []string) string { return "[" + strings.Join(ids, ", ") + "]" }

// reordered names the known difference that explains why got has another
// order than want; "" for none.
func (j judge) reordered(got, want []string, came, step Step) (why string) {
	for i := range want {
		for k := i + 1; k < len(want); k++ {
			x, y := slices.Index(got, want[i]), slices.Index(got, want[k])
			if x < y {
				continue
			}
			a, b := step.Delivered[i], step.Delivered[k]
			switch {
			case a.Redelivered || b.Redelivered || step.Before[i] || step.Before[k]:
				why = knownRedeliveredOrder
			case j.returnsLast() && (came.Delivered[x].Redelivered || came.Delivered[y].Redelivered):
				why = knownRedeliveredOrder
			case a.diedIn() != "" && b.diedIn() != "" && a.history() != b.history():
				why = knownDeadTogether
			case a.diedIn() != "" && b.diedIn() != "" && !j.classic:
				why = knownDeadQuorum
			case a.diedByItself() && b.diedByItself() && j.taken[a.diedIn()]:
				why = knownRedeliveredOrder // of which they died in their queue
			default:
				return ""
			}
		}
	}
	return why
}

// differs names the first field in which a delivery is not as wanted.
func (j judge) differs(got, want Delivered, before bool) (name, is, should string) {
	j.strip(&got, &want)
	a, b := got.fields(), want.fields()
	for i, w := range b {
		g := a[i]
		if g.text == w.text {
			continue
		}
		switch {
		case w.name == "Attempt" && !j.driver:
			continue // RabbitMQ has none
		case w.name == "Attempt" && want.Attempt == 0:
			j.known.add(knownAttemptClassic, 1)
			continue
		case w.name == "Attempt" && want.Redelivered && !before && want.Attempt > got.Attempt:
			j.known.add(knownAttemptReturned, 1)
			continue
		case w.name == "Redelivered" && got.Redelivered && j.returnsLast():
			j.known.add(knownRedeliveredOrder, 1)
			continue
		case w.name == "Redelivered" && want.Redelivered && !before && want.diedIn() != "" && j.broker[0] >= 4:
			j.known.add(knownDeadFlag, 1)
			continue
		case w.name == "Redelivered" && want.Redelivered && !before:
			j.known.add(knownFlagPrefetched, 1)
			continue
		case w.name == "Redelivered" && j.driver && !want.Redelivered && before:
			j.known.add(knownFlagDelayed, 1)
			continue
		}
		return w.name, g.text, w.text
	}
	return "", "", ""
}

// strip takes out of the wanted headers what newer brokers have in them.
func (j judge) strip(got, want *Delivered) {
	drop := func(known string, of func(name string) bool) {
		h := maps.Clone(want.Message.Header)
		maps.DeleteFunc(h, func(name string, _ any) bool { _, came := got.Message.Header[name]; return of(name) && !came })
		if len(h) < len(want.Message.Header) {
			want.Message.Header = h
			j.known.add(known, 1)
		}
	}
	drop(knownLastDeath, func(name string) bool { return strings.HasPrefix(name, "x-last-death-") })
	if j.broker[0] >= 4 && want.diedIn() != "" {
		drop(knownDeadCC, func(name string) bool { return name == "CC" })
	}
}
