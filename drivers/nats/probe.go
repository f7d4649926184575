package nats

import (
	"strconv"
	"time"
)

const (
	// longestBeat bounds the time between two probes of a long lease: a leader that
	// hangs is told by one that falls into the time until another leads.
	longestBeat = 2 * time.Second

	// maxProbes bounds what is kept of probes that nobody answers.
	maxProbes = 100
)

// probe makes a new estimate of how old what arrives can be.
func (c *consumer) probe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != nil {
		c.link.probe()
	}
}

// probe has the queue's consumer answer to the end of a hold that does not exist, in
// line with the messages that it sends, and by the same way. The caller holds the mutex.
func (l *link) probe() (sent time.Time, ok bool) {
	number := l.probed + 1
	sent = time.Now()
	if l.c.s.nc.PublishRequest(l.c.h.probe, l.inbox+"."+strconv.FormatUint(number, 10), progressBody) != nil {
		return sent, false
	}
	l.probed, l.probes[number] = number, sent
	if len(l.probes) > maxProbes {
		delete(l.probes, number-maxProbes) // the oldest: an echo takes those before it along
		l.passed = true
	}
	return sent, true
}

// echo hears the answer to a probe. Where an earlier one has none, it went to a server
// that led the queue's consumer and hung until another did: so may have requests, and
// the other one knows nothing of them. The link is left, and another one made.
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
	lost := l.passed
	for n := range l.probes {
		if n < number {
			delete(l.probes, n)
			lost = true
		}
	}
	l.passed = false
	left := l.fence != nil
	if left && number == l.probed {
		l.fence.echo()
	}
	c.mu.Unlock()
	if lost {
		c.retire(func(cur *link) bool { return cur == l })
	}
	if lost || left {
		signal(c.drop)
	}
}

// refused hears that nobody leads the queue's consumer, and reports whether the link was
// left before: what was asked for on it then need not be waited for.
func (l *link) refused(number uint64) bool {
	c := l.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.fence == nil {
		return false
	}
	if number == l.probed {
		l.fence.echo()
		signal(c.drop)
	}
	return true
}
