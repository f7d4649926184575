package amqp

import (
	"testing"
	"time"
)

// TestPause: however long a broker was away, it is looked for each second, and
// what was waited for it is not waited again when the connection is lost soon
// after. Connections that never last are made ever less often.
func TestPause(t *testing.T) {
	var p pause
	take := func(what string, least, most time.Duration) {
		t.Helper()
		if d := p.take(); d < least || d > most {
			t.Errorf("%s: a pause of %v, want %v to %v", what, d, least, most)
		}
	}
	p.lost(time.Hour)
	take("at first", 0, 0)
	take("refused", minPause/2, minPause)
	for range 20 {
		take("while it is away", minPause, time.Second)
	}
	take("away for long", time.Second/2, time.Second)
	p.lost(0)
	take("lost soon after it was back", minPause/2, minPause)
	for range 20 {
		p.lost(0)
		take("never lasting", minPause, time.Second)
	}
	take("never lasting", time.Second/2, time.Second)
	p.lost(lasting)
	take("when one has lasted", 0, 0)
}
