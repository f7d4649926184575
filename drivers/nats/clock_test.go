package nats

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c clock
		ahead := func() time.Duration { return time.Until(c.now()) }
		// told is an answer that took a while, and came from a server that is
		// ahead by some time.
		told := func(took, by time.Duration) {
			sent := time.Now()
			server := sent.Round(0).Add(by + took/4)
			time.Sleep(took)
			c.observe(sent, time.Now(), server)
		}
		expect := func(when string, by, within time.Duration) {
			t.Helper()
			if off := (ahead() - by).Abs(); off > within {
				t.Errorf("%s: ahead by %v, not %v ± %v", when, ahead(), by, within)
			}
		}
		expect("unknown", 0, 0)
		told(400*time.Millisecond, time.Hour)
		expect("told slowly", time.Hour, 200*time.Millisecond)
		told(4*time.Millisecond, time.Hour)
		expect("told fast", time.Hour, 2*time.Millisecond)
		told(400*time.Millisecond, time.Hour)
		expect("told slowly again", time.Hour, 2*time.Millisecond)
		told(400*time.Millisecond, 0)
		expect("set back", 0, 200*time.Millisecond)
		told(4*time.Millisecond, 0)
		told(400*time.Millisecond, 100*time.Millisecond)
		expect("a little later", 0, 2*time.Millisecond)
		if c.old() {
			t.Error("old")
		}
		time.Sleep(clockAge)
		if !c.old() {
			t.Error("not old")
		}
		told(400*time.Millisecond, 100*time.Millisecond)
		expect("long after", 100*time.Millisecond, 200*time.Millisecond)
	})
}

// TestClockIsSet: who only subscribes learns of the server's time again and
// again.
func TestClockIsSet(t *testing.T) {
	for name, q := range map[string]routing.Queue{"plain": {Name: "q"}, "kept": {Name: "q", MaxPriority: 1}} {
		t.Run(name, func(t *testing.T) {
			s := openRaw(t, testbroker.URL(t, "nats")+"&lease=1s")
			c := emulated(t, s)
			declare(t, c, q)
			subscribe(t, c, "q", 1)
			s.clock.mu.Lock()
			s.clock.server = s.clock.server.Add(time.Hour)
			s.clock.at = s.clock.at.Add(-clockAge)
			s.clock.mu.Unlock()
			for ctx := within(t); time.Until(s.Now()).Abs() > time.Minute; {
				if err := wait(ctx, 10*time.Millisecond); err != nil {
					t.Fatal("the clock is wrong for ever")
				}
			}
		})
	}
}
