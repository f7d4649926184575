package amqp

import (
	"math/rand/v2"
	"time"
)

// The bounds of the pause between two rounds through the hosts. A round that is
// refused costs next to nothing, and a broker that starts is there before anybody
// is told.
const (
	minPause = 50 * time.Millisecond
	maxPause = time.Second
	lasting  = time.Second
)

// pause is how long a link waits before its next round. It grows with each round,
// and begins anew with each connection. Only connections that do not last have
// it begin higher each time: one that is lost at once, as by a message that the
// broker cannot read, must not be made again in a loop.
type pause struct {
	begin time.Duration
	next  time.Duration
}

// lost begins anew after a connection.
func (p *pause) lost(lasted time.Duration) {
	if lasted >= lasting {
		p.begin = 0
	} else {
		p.begin = longer(p.begin)
	}
	p.next = p.begin
}

// take is the pause before one round.
func (p *pause) take() time.Duration {
	now := p.next
	p.next = longer(now)
	return now/2 + rand.N(now/2+1)
}

func longer(d time.Duration) time.Duration { return min(max(2*d, minPause), maxPause) }
