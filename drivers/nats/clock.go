package nats

import (
	"sync"
	"time"
)

// clock is the server's, as well as this process knows it: by the answer, of
// late, that was the fastest on its way.
type clock struct {
	mu     sync.Mutex
	ahead  time.Duration // of this machine's
	within time.Duration // how far that can be wrong
	at     time.Time     // when it was seen
}

// clockAge is for how long a good estimate goes before a newer one.
const clockAge = 30 * time.Second

// observe learns from an answer that says when the server gave it.
func (c *clock) observe(sent, received, server time.Time) {
	if server.IsZero() {
		return
	}
	within := received.Sub(sent) / 2
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.at.IsZero() || within <= c.within || received.Sub(c.at) > clockAge {
		c.ahead = server.Sub(sent.Round(0).Add(within))
		c.within, c.at = within, received
	}
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Round(0).Add(c.ahead)
}

// Now is the server's time.
func (s *store) Now() time.Time { return s.clock.now() }
