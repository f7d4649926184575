package oracle

import (
	"context"
	"errors"
	"slices"
)

// check plays a script and looks again at what differs: where the reference
// was not steady, its second record counts, taken more slowly. Where it was, a
// backend differs that did so twice: a machine that stands still can make one
// differ once.
func (w *worker) check(ctx context.Context, s Script, backends []string, at pace, t *tally) (record []Step, found []finding, err error) {
	record, found, mine, err := w.unbroken(ctx, s, backends, at)
	if err != nil || len(found) == 0 {
		t.merge(mine)
		return record, found, err
	}
	slower := pace{at.quiet * 5, at.patience}
	again, foundAgain, mine, err := w.unbroken(ctx, s, backends, slower)
	t.merge(mine)
	if err != nil {
		return record, found, err
	}
	if !steady(record, again) {
		t.add(unsteady, 1)
		return again, foundAgain, nil
	}
	twice, once := recurring(found, foundAgain)
	if once > 0 {
		_, foundLast, _, err := w.unbroken(ctx, s, backends, slower)
		if err != nil {
			return record, found, err
		}
		twice, once = recurring(found, foundAgain, foundLast)
		t.add(single, once)
	}
	return record, twice, nil
}

// recurring returns a finding for each backend that differed in two runs at
// least, and how many did so once.
func recurring(runs ...[]finding) (twice []finding, once int) {
	n := map[string]int{}
	for _, f := range slices.Concat(runs...) {
		switch n[f.Backend]++; n[f.Backend] {
		case 1:
			once++
		case 2:
			once--
			twice = append(twice, f)
		}
	}
	return twice, once
}

// unbroken plays a script, once again where RabbitMQ broke a connection meanwhile.
func (w *worker) unbroken(ctx context.Context, s Script, backends []string, at pace) (record []Step, found []finding, t *tally, err error) {
	t = newTally()
	record, found, err = w.play(ctx, s, backends, at, t)
	if errors.Is(err, errBroken) {
		t = newTally()
		t.add(broken, 1)
		record, found, err = w.play(ctx, s, backends, at, t)
	}
	return record, found, t, err
}

const (
	// unsteady is what the runs are counted as whose reference showed something
	// else when it was played again, more slowly.
	unsteady = "references that were not steady"
	// single is what the differences are counted as that a backend showed in one run
	// of three.
	single = "differences that did not come again"
	// broken is what the runs are counted as that were played again since RabbitMQ
	// broke a connection.
	broken = "broken connections"
)

func steady(a, b []Step) bool {
	for i := range a {
		if a[i].text != b[i].text {
			return false
		}
	}
	return true
}
