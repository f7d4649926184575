package redis

import (
	"context"
	"sync/atomic"
	"time"
)

// clock knows the server's time from its answers to TIME. In a cluster it is that
// of the server that holds the topology: the others' are to agree with it.
type clock struct {
	s      *store
	latest atomic.Pointer[reading]
	again  chan struct{} // cap 1: read it now
}

// reading is what the server's clock showed when here it was base.
type reading struct {
	base   time.Time
	server time.Time
	within time.Duration // by how much it is wrong at most
}

const (
	clockEvery = 10 * time.Second
	// clockDrift is how far two clocks run apart, by far.
	clockDrift = 1000 // one part in
)

func (r *reading) now() time.Time { return r.server.Add(time.Since(r.base)) }

// better reports whether r, the newer reading, is to be gone by: it is more
// exact, or the other cannot be right any more, as after a failover or when the
// server's clock was set.
func (r *reading) better(old *reading) bool {
	if old == nil {
		return true
	}
	wrong := old.within + r.base.Sub(old.base)/clockDrift
	apart := r.server.Sub(old.server.Add(r.base.Sub(old.base))).Abs()
	return r.within <= wrong || apart > r.within+wrong
}

// Now is the server's time, by which entries get their IDs.
func (s *store) Now() time.Time {
	if r := s.clock.latest.Load(); r != nil {
		return r.now()
	}
	return time.Now()
}

func (c *clock) init(s *store) {
	c.s = s
	c.again = make(chan struct{}, 1)
}

// read asks the server.
func (c *clock) read(ctx context.Context) error {
	n, err := c.s.at(c.s.namespace())
	if err != nil {
		return err
	}
	sent := time.Now()
	at, err := n.client.Time(ctx).Result()
	if err != nil {
		return err
	}
	base := time.Now()
	half := base.Sub(sent) / 2
	if r := (&reading{base, at.Add(half), half}); r.better(c.latest.Load()) {
		c.latest.Store(r)
	}
	return nil
}

// hurry has it read soon.
func (c *clock) hurry() {
	select {
	case c.again <- struct{}{}:
	default:
	}
}

func (c *clock) run() {
	timer := time.NewTicker(clockEvery)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-c.again:
		case <-c.s.ctx.Done():
			return
		}
		_ = c.read(c.s.ctx) // what it was goes on until the next time
	}
}
