package mem

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
)

// TestRemembered: an ID of the application's own is remembered for the window;
// one that was made for its message costs nothing.
func TestRemembered(t *testing.T) {
	l := newLoop(t, 10, 1)
	l.run(l.freshIDs(10))
	q := l.only()
	if n := q.seen.young.n; n != 0 {
		t.Errorf("%d IDs are remembered that nobody can repeat", n)
	}
	own := &driver.Message{ID: "own", Key: "a.b.c"}
	for _, pb := range l.batch {
		pb.Reset(own, own.ID)
	}
	l.p.Publish(t.Context(), l.batch, true)
	if info, err := q.inspect(); err != nil || info.Ready+info.Unsettled != 1 {
		t.Errorf("of ten with one ID there are %+v, %v", info, err)
	}
}

// only is the queue's storage.
func (l *loop) only() *queue {
	l.tb.Helper()
	spaces, _ := find(l.tb.Name())
	for _, q := range spaces[0].queues {
		return q
	}
	l.tb.Fatal("no queue")
	return nil
}

// TestWindow: the window is 20 seconds and more, also at a rate at which the
// memory is bounded only just; when it becomes shorter, that is noted.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d dedup
		for i := range 3 * 20 {
			for j := range 100 {
				if !d.add(fmt.Sprintf("%d.%d", i, j), time.Now()) {
					t.Fatal("a fresh ID is known")
				}
			}
			if at := max(i-19, 0); d.add(fmt.Sprintf("%d.0", at), time.Now()) {
				t.Fatalf("after %d s an ID is forgotten", i-at)
			}
			time.Sleep(time.Second)
		}
		if d.short {
			t.Error("the window is said to be shorter")
		}
		d.add("one more", time.Now())
		d.young.n = maxGeneration
		d.add("next", time.Now())
		if !d.short {
			t.Error("a shorter window is not noted")
		}
	})
}
