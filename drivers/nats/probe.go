package nats

import (
	"strconv"
	"time"
)

// probe makes a new estimate of how old what arrives can be. The queue's
// consumer answers to the end of a hold that does not exist, in line with the
// messages that it sends, and by the same way.
func (c *consumer) probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.link
	if l == nil || len(l.probes) >= maxProbes {
		return
	}
	l.probed++
	sent := time.Now()
	if c.s.nc.PublishRequest(c.h.probe, l.inbox+"."+strconv.FormatUint(l.probed, 10), progressBody) == nil {
		l.probes[l.probed] = sent
	}
}

// maxProbes bounds what is kept of probes that nobody answers.
const maxProbes = 100

// echo hears the answer to a probe. Where an earlier one has none, it went to a server
// that led the queue's consumer and hung until another did: so may have requests, and
// the other one knows nothing of them. The link is drained, and another one made.
func (l *link) echo(number uint64) {
	c := l.c
	c.mu.Lock()
	sent, ok := l.probes[number]
	if !ok {
		c.mu.Unlock()
		return
	}
	l.fresh = sent
	delete(l.probes, number)
	lost := false
	for n := range l.probes {
		if n < number {
			delete(l.probes, n)
			lost = true
		}
	}
	c.mu.Unlock()
	if lost {
		c.retire(func(cur *link) bool { return cur == l })
		signal(c.drop)
	}
}
