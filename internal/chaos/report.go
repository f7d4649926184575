package chaos

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Bar is how soon after the broker, or a new leader, is ready everything goes on.
const Bar = 2 * time.Second

// A Report is what a run showed.
type Report struct {
	Name       string
	Violations []string
	Lost       int
	Over       bool // the worst resumption took longer than Bar
	Lines      []string
	// Dir has the ledgers and the clients' logs; removed where all is well.
	Dir string
}

func (r *run) report() *Report {
	lost := len(r.record.lost())
	found := r.record.check()
	counts := map[kind]int{}
	worst := map[kind]time.Duration{}
	var resumed []time.Duration
	for _, f := range r.record.faults {
		counts[f.kind]++
		if f.victim >= 0 && f.kind != clientKill {
			counts[clientKill]++
		}
		for _, d := range r.record.resumed(f) {
			worst[f.kind] = max(worst[f.kind], d)
			if f.kind.kills() {
				resumed = append(resumed, d)
			}
		}
	}
	slices.Sort(resumed)
	rep := &Report{Name: r.Name, Lost: lost, Dir: r.dir}
	var p50, longest time.Duration
	if n := len(resumed); n > 0 {
		p50, longest = resumed[n/2], resumed[n-1]
	}
	faults := 0
	var kinds []string
	for _, k := range r.kinds {
		faults += counts[k]
		kinds = append(kinds, fmt.Sprintf("%s=%d", k, counts[k]))
		if counts[k] == 0 {
			r.record.violation("no fault of the kind %s was injected", k)
		}
	}
	over := ""
	if rep.Over = longest > Bar; rep.Over {
		over = fmt.Sprintf(" (over %v)", Bar)
	}
	var after []string
	for _, k := range r.kinds {
		if d, ok := worst[k]; ok {
			after = append(after, fmt.Sprintf("%s=%v", k, round(d)))
		}
	}
	rep.Lines = []string{
		fmt.Sprintf("%s: confirmed=%d lost=%d duplicates=%d faults=%d resume_p50=%v resume_max=%v%s", r.Name, found.confirmed, lost, found.duplicates, faults, round(p50), round(longest), over),
		fmt.Sprintf("%s: faults: %s", r.Name, strings.Join(kinds, " ")),
		fmt.Sprintf("%s: worst resumption after: %s", r.Name, strings.Join(after, " ")),
		fmt.Sprintf("%s: refused=%d unknown=%d, of ended clients open=%d; checked: order of %d, attempts of %d, holds of %d", r.Name, found.rejected, found.unknown, found.open, found.ordered, found.attempts, found.held),
	}
	if found.ordered == 0 {
		r.record.violation("no two messages could show their order")
	}
	rep.Violations = r.record.violations
	return rep
}

func round(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

// resumed is how long after a fault each client that had lived through it did its
// first work.
func (r *record) resumed(f *fault) []time.Duration {
	var list []time.Duration
	for _, t := range r.clients {
		for _, work := range [][]time.Time{t.confirms, t.deliveries} {
			if len(work) == 0 || !work[0].Before(f.begun) {
				continue
			}
			i, _ := slices.BinarySearchFunc(work, f.ready, time.Time.Compare)
			if i < len(work) {
				list = append(list, work[i].Sub(f.ready))
			}
		}
	}
	return list
}
