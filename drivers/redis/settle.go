package redis

import (
	"context"
	"time"

	goredis "github.com/redis/go-redis/v9"

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

// settleAgain is how soon what the server refused is sent again.
const settleAgain = time.Second

func (c *consumer) Settle(ctx context.Context, d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	h := d.Ref.(*hold)
	c.mu.Lock()
	if h.next == nil || h.life != c.life {
		c.mu.Unlock()
		return driver.ErrLost
	}
	first := c.add(h, o == driver.Ack, delay) && !c.taking
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

// rest leaves what is to be settled to flush, since the reader takes none before it
// waits.
func (c *consumer) rest() {
	c.mu.Lock()
	c.taking = false
	left := len(c.todo) > 0
	c.mu.Unlock()
	if left {
		c.wake()
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

// settlements takes what is to be settled, oldest first, and says in which life that
// is and how many of them are acknowledged.
func (c *consumer) settlements() (life uint64, batch []settlement, acks int) {
	c.mu.Lock()
	life = c.life
	n := min(len(c.todo), maxSettle)
	batch = c.todo[:n:n]
	c.todo = c.todo[n:]
	c.taken++
	c.taking = false
	if len(c.todo) > 0 {
		c.wake() // no later one is the first
	}
	c.mu.Unlock()
	for i := range batch {
		if batch[i].ack {
			acks++
		}
	}
	return life, batch, acks
}

// settle appends settlements to a command's words, but for acks that acked has sent.
func (k *socket) settle(batch []settlement, acks int, acked bool) {
	if acked {
		acks = 0
	}
	k.number(acks)
	if acks > 0 {
		k.acks(batch)
	}
	for i := range batch {
		if st := &batch[i]; !st.ack {
			k.words(st.id)
			k.number(st.count)
			k.number(int(st.milliseconds()))
		}
	}
}

func (k *socket) acks(batch []settlement) {
	for i := range batch {
		if batch[i].ack {
			k.word(batch[i].id)
		}
	}
}

// acked sends acks natively, for to pass many IDs through a function costs the
// server some times what it does with them. They count also where the consumer was
// struck and does not know: the work is done. Where there are rules these must know.
// XDEL goes first: an entry that is deleted and pending yet, should the connection
// end in between, is gone when its consumer is struck; one that is the other way
// round would stay for ever.
func (c *consumer) acked(k *socket, batch []settlement, acks int) bool {
	if acks == 0 || c.rules() {
		return false
	}
	k.words("XDEL", c.key)
	k.acks(batch)
	k.end()
	k.words("XACK", c.key, group)
	k.acks(batch)
	k.end()
	return true
}

// acked takes the answers to acks that were sent natively.
func (a *answer) acked() error {
	err := a.pass()
	if e := a.pass(); err == nil {
		err = e
	}
	return err
}

// milliseconds is the delay.
func (st *settlement) milliseconds() int64 {
	if st.delay == unseen {
		return unseen
	}
	return (st.delay + time.Millisecond - 1).Milliseconds()
}

// unsettled puts back what a call that failed was to settle. Twice is harmless.
func (c *consumer) unsettled(life uint64, batch []settlement) {
	c.mu.Lock()
	if life == c.life {
		c.todo = append(batch, c.todo...)
	}
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
	refused := false
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
		err := c.sendSettled(c.ctx)
		if err == nil || c.ctx.Err() != nil {
			refused = false
			continue
		}
		if !refused {
			c.s.log.Warn("settlements of a Redis queue are not accepted; trying again", "queue", c.q.Name, "error", err)
		}
		refused = true
		timer.Reset(settleAgain)
		select {
		case <-timer.C:
			c.wake()
		case <-c.ctx.Done():
			return
		}
	}
}

// settling adds to a pipeline what settles; last, if any, tells of the consumer.
func (c *consumer) settling(ctx context.Context, pipe goredis.Pipeliner, batch []settlement, acks int) (last *goredis.Cmd) {
	var acked, rest []any
	for i := range batch {
		if st := &batch[i]; st.ack {
			acked = append(acked, &st.id)
		} else {
			rest = append(rest, st.id, st.count, st.milliseconds())
		}
	}
	if acks > 0 && !c.rules() {
		pipe.Do(ctx, append([]any{"XDEL", c.key}, acked...)...)
		pipe.Do(ctx, append([]any{"XACK", c.key, group}, acked...)...)
		if len(rest) == 0 {
			return nil
		}
		acked, acks = nil, 0
	}
	args := append([]any{"FCALL", c.fns.settle, "1", c.key, c.name, c.lease(), acks}, acked...)
	return pipe.Do(ctx, append(args, rest...)...)
}

// sendSettled sends what has been settled, and returns when the server has it.
func (c *consumer) sendSettled(ctx context.Context) error {
	for try := 0; ; {
		if err := c.named(ctx); err != nil {
			return unconfirmed(err)
		}
		c.mu.Lock()
		idle := len(c.todo) == 0
		c.mu.Unlock()
		if idle {
			c.call.unlock()
			return nil
		}
		life, batch, acks := c.settlements()
		var v any = int64(1)
		n, err := c.s.at(c.key)
		if err == nil {
			pipe := n.client.Pipeline()
			settled := c.settling(ctx, pipe, batch, acks)
			_, err = c.s.await(ctx, func() (any, error) { return pipe.Exec(ctx) })
			if err == nil && settled != nil {
				v = settled.Val()
			}
		}
		switch {
		case err == nil:
			c.verdict(v)
		case lost(err) || transient(reply(err)):
			c.unsettled(life, batch)
		default:
			c.unsettled(life, batch) // what this is may pass, as permissions do
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
