package nats

import (
	"context"
	"sync"
	"time"
)

// clock is the server's, as well as this process knows it: by the answer, of
// late, that was the fastest on its way. It goes on from there by the monotonic
// clock, which nobody sets.
type clock struct {
	mu     sync.Mutex
	server time.Time
	at     time.Time     // when that was
	within time.Duration // how far it can be wrong
}

// clockAge is for how long a good estimate goes before a newer one.
const clockAge = 30 * time.Second

// observe learns from an answer that says when the server gave it. One that
// does not fit what was known says that a clock was set, or this machine slept.
func (c *clock) observe(sent, received, server time.Time) {
	if server.IsZero() {
		return
	}
	within := received.Sub(sent) / 2
	server = server.Add(within)
	c.mu.Lock()
	defer c.mu.Unlock()
	age := received.Sub(c.at)
	if c.at.IsZero() || within <= c.within || age > clockAge || server.Sub(c.server.Add(age)).Abs() > within+c.within {
		c.server, c.at, c.within = server, received, within
	}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() {
		return time.Now().Round(0)
	}
	return c.server.Add(time.Since(c.at))
}

func (c *clock) old() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Since(c.at) > clockAge
}

// Now is the server's time.
func (s *store) Now() time.Time { return s.clock.now() }

// setClock asks for the server's time by the way of a stream, if it is long
// since it was told.
func (s *store) setClock(ctx context.Context, stream string) error {
	if !s.clock.old() {
		return nil
	}
	sent := time.Now()
	info, err := s.js.Stream(ctx, stream)
	if err == nil {
		s.clock.observe(sent, time.Now(), info.CachedInfo().TimeStamp)
	}
	return err
}
