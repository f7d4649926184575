package redis

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// settlement is an outcome that the server has not confirmed.
type settlement struct {
	id    string
	count int
	ack   bool
	delay time.Duration // unseen: it does not count
}

const unseen = -1

func (c *consumer) Settle(ctx context.Context, d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	h := d.Ref.(*hold)
	c.mu.Lock()
	if h.next == nil || h.life != c.life {
		c.mu.Unlock()
		return driver.ErrLost
	}
	first := c.add(h, o == driver.Ack, delay)
	c.mu.Unlock()
	if first {
		c.wake()
	}
	return nil
}

// add notes a settlement; the caller holds mu.
func (c *consumer) add(h *hold, ack bool, delay time.Duration) (first bool) {
	h.unlink()
	c.todo = append(c.todo, settlement{h.id, h.count, ack, delay})
	return len(c.todo) == 1
}

func (c *consumer) wake() {
	select {
	case c.kick <- struct{}{}:
	default:
	}
}

// expire gives back, counted, what was not extended within the lease: the inbox
// has let go of it by now and will not settle it, while the server goes by the
// whole consumer, which is alive.
func (c *consumer) expire() {
	late := time.Now().Add(-c.s.cfg.lease / 10)
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := c.holds.next; h != &c.holds; {
		next := h.next
		if h.until.Before(late) && c.add(h, false, 0) {
			c.wake()
		}
		h = next
	}
}

func (h *hold) unlink() {
	h.prev.next, h.next.prev = h.next, h.prev
	h.prev, h.next = nil, nil
}

// settlements takes what is to be settled, oldest first, and appends it to the
// arguments of a call. Back: some of it is given back.
func (c *consumer) settlements(args []any) (all []any, batch []settlement, back bool) {
	c.mu.Lock()
	n := min(len(c.todo), maxSettle)
	batch = c.todo[:n:n]
	c.todo = c.todo[n:]
	c.taken++
	if len(c.todo) > 0 {
		c.wake() // no later one is the first
	}
	c.mu.Unlock()
	acks := 0
	for _, st := range batch {
		if st.ack {
			acks++
		}
	}
	args = append(args, acks)
	for i := range batch {
		if st := &batch[i]; st.ack {
			args = append(args, &st.id)
		}
	}
	for _, st := range batch {
		if !st.ack {
			ms := int64(unseen)
			if st.delay != unseen {
				ms = (st.delay + time.Millisecond - 1).Milliseconds()
			}
			args = append(args, st.id, st.count, ms)
		}
	}
	return args, batch, acks < n
}

// unsettled puts back what a call that failed was to settle. Twice is harmless.
func (c *consumer) unsettled(batch []settlement) {
	c.mu.Lock()
	c.todo = append(batch, c.todo...)
	c.mu.Unlock()
}

// flush is the goroutine that sends settlements which no fetch has taken along.
func (c *consumer) flush() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	taken := func() uint64 {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.taken
	}
	for {
		select {
		case <-c.kick:
		case <-c.ctx.Done():
			return
		}
		before := taken()
		timer.Reset(ackDelay)
		select {
		case <-timer.C:
		case <-c.ctx.Done():
			return
		}
		if taken() != before {
			continue // for what came after that it is kicked again
		}
		if err := c.sendSettled(c.ctx); err != nil && c.ctx.Err() == nil {
			c.s.log.Warn("settlements of a Redis queue were not accepted", "queue", c.q.Name, "error", err)
		}
	}
}

// sendSettled sends what has been settled, and returns when the server has it.
func (c *consumer) sendSettled(ctx context.Context) error {
	for try := 0; ; {
		if err := c.call.lock(ctx); err != nil {
			return unconfirmed(err)
		}
		c.mu.Lock()
		idle := len(c.todo) == 0
		c.mu.Unlock()
		if idle {
			c.call.unlock()
			return nil
		}
		args, batch, _ := c.settlements([]any{"FCALL", c.fns.settle, "1", c.key, c.name, c.lease()})
		var v any
		n, err := c.s.at(c.key)
		if err == nil {
			v, err = c.s.await(ctx, func() (any, error) { return n.client.Do(ctx, args...).Result() })
		}
		switch {
		case err == nil:
			c.verdict(v)
		case lost(err) || transient(reply(err)):
			c.unsettled(batch)
		default:
			c.call.unlock()
			return mapped(err)
		}
		c.call.unlock()
		if err == nil {
			try = 0
			continue
		}
		if ctx.Err() != nil || c.s.closed.Load() {
			return unconfirmed(err)
		}
		if noFunction(reply(err)) {
			_, _ = c.s.await(ctx, func() (any, error) { return nil, loadLibrary(ctx, n.client) })
		} else {
			c.s.servers.hurry()
		}
		select {
		case <-time.After(pause(try)):
			try++
		case <-ctx.Done():
		}
	}
}
