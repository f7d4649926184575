package oracle

import (
	"context"
	"errors"
)

// check plays a script and looks again at what differs: where the reference
// was not steady, its second record counts, taken more slowly.
func (w *worker) check(ctx context.Context, s Script, backends []string, at pace, t *tally) (record []Step, found []finding, err error) {
	record, found, mine, err := w.unbroken(ctx, s, backends, at)
	if err != nil || len(found) == 0 {
		t.merge(mine)
		return record, found, err
	}
	again, foundAgain, mine, err := w.unbroken(ctx, s, backends, pace{at.quiet * 5, at.patience})
	t.merge(mine)
	if err != nil {
		return record, found, err
	}
	if steady(record, again) {
		return record, found, nil
	}
	t.add(unsteady, 1)
	return again, foundAgain, nil
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
