package nats

import (
	"context"
	"maps"
	"slices"
	"time"
)

// A request for messages cannot be taken back: to unsubscribe ends it, but what the
// server sent before it heard of that is lost. Such a message comes again when its lease
// is over, with an attempt more that nobody has seen. So a link that is left stays
// subscribed until what was asked for on it is here, or nothing of it seems to be on its
// way. What is published at just that moment can still be lost.
const (
	// fenceCalm is how long nothing has come by then in a cluster. An echo alone is not
	// enough there: a consumer that is replicated sends messages only when a majority
	// knows of them, and echoes at once.
	fenceCalm = 100 * time.Millisecond
	// fenceLimit is how long that is waited for. After it the echo alone is enough, or
	// where not even that comes, as long a silence.
	fenceLimit = 2 * time.Second
	fencePace  = 10 * time.Millisecond // of looking
)

// fence is what a link that was left waits for.
type fence struct {
	began  time.Time
	limit  time.Duration
	calm   time.Duration // the store's, or 0 where one server does everything in turn
	sent   time.Time     // the last probe; zero: none yet
	echoed bool          // and its echo is here
	over   bool          // the link is being unsubscribed
}

// leave makes of a link one that only brings what it was asked for; part ends it. The
// caller holds the mutex.
func (l *link) leave(limit time.Duration) {
	if l.c.link == l {
		l.c.link = nil
	}
	if l.fence == nil {
		l.fence = &fence{began: time.Now(), limit: limit}
		if l.c.s.nc.ConnectedClusterName() != "" {
			l.fence.calm = l.c.s.calm
		}
	}
	l.fence.limit = min(l.fence.limit, limit)
}

// over reports whether a link that was left can be ended. The caller holds the mutex.
func (l *link) over(now time.Time) bool {
	f, quiet := l.fence, now.Sub(l.heard)
	switch {
	case l.promised == 0 || l.c.gone:
		return true
	case f.echoed && f.sent.After(l.heard) && quiet >= f.calm:
		return true
	case now.Sub(f.began) < f.limit:
		return false
	}
	return f.echoed || quiet >= f.limit
}

// echo notes that the last probe is answered, or refused. The caller holds the mutex.
func (f *fence) echo() {
	if !f.sent.IsZero() {
		f.echoed = true
	}
}

// part ends the links that were left and have brought all that they will. A result
// above 0 is how long to wait before looking at the others again.
func (c *consumer) part() (wait time.Duration) {
	now := time.Now()
	var over []*link
	c.mu.Lock()
	for l := range c.links {
		f := l.fence
		if f == nil || f.over {
			continue
		}
		if f.over = l.over(now); f.over {
			over = append(over, l)
			continue
		}
		wait = fencePace
		if f.sent.IsZero() || f.echoed && !f.sent.After(l.heard) {
			if sent, ok := l.probe(); ok {
				f.sent, f.echoed = sent, false
			}
		}
	}
	c.mu.Unlock()
	for _, l := range over {
		if l.sub.Drain() != nil {
			l.cut()
		}
	}
	return wait
}

// drain leaves all links, and waits until nothing can arrive any more. It is called by
// run, or when that has ended. Of the time that ctx has half is for giving back. After an
// error the links are as they were, left.
func (c *consumer) drain(ctx context.Context) error {
	if _, err := c.s.session(ctx); err != nil {
		return err
	}
	limit := fenceLimit
	if end, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(end)/2)
	}
	c.mu.Lock()
	for l := range c.links {
		l.leave(limit)
	}
	c.mu.Unlock()
	for {
		c.part()
		c.mu.Lock()
		left := len(c.links)
		c.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-c.drop:
		case <-time.After(fencePace):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// cut ends all links, whatever is on its way.
func (c *consumer) cut() {
	c.mu.Lock()
	links := slices.Collect(maps.Keys(c.links))
	c.mu.Unlock()
	for _, l := range links {
		l.cut()
	}
}

func (l *link) cut() {
	l.sub.Unsubscribe()
	l.c.drained(l)
}
