package redis

import (
	"errors"
	"strconv"
	"time"
	"unsafe"

	"github.com/polymq/polymq/driver"
)

// read is the consumer's goroutine that fills the inbox. A fetch takes what is
// there, what was given back first; when nothing is left, it blocks in the
// stream and in the queue's wake-up stream, into which every return writes.
func (c *consumer) read() {
	defer close(c.ended)
	defer c.disconnect()
	beat := c.s.cfg.lease / 3
	rest := beat // the longest without a call
	if c.q.MaxLength > 0 || c.q.MaxBytes > 0 {
		rest = min(beat, maxBlock) // the limits count what it has room for and is silent about
	}
	timer := time.NewTimer(beat)
	defer timer.Stop()
	var r fetch
	unknown := false // what the last answer was
	swept := time.Now()
	for try := 0; ; {
		room := c.in.Room()
		if room == 0 || r.full {
			r.full = false
			timer.Reset(rest)
			select {
			case <-c.in.More():
			case <-timer.C: // the fetch is then a sign of life
			case <-c.stopped:
				return
			case <-c.ctx.Done():
				return
			}
			room = c.in.Room()
		}
		select {
		case <-c.stopped:
			return
		case <-c.ctx.Done():
			return
		default:
		}
		if r.sweep = time.Since(swept) > beat; r.sweep {
			swept = time.Now()
			c.expire()
		}
		var err error
		if unknown {
			err = c.recover()
			unknown = err != nil
		}
		if err == nil {
			err = c.fetch(&r, room)
		}
		if err == nil && r.alive && !r.more && room > 0 {
			err = c.block(&r)
		}
		switch {
		case err == nil:
			try = 0
			continue
		case errors.Is(err, driver.ErrNotFound):
			if c.call.lock(c.ctx) == nil {
				c.verdict(int64(0))
				c.call.unlock()
			}
			return
		case lost(err) || partly(reply(err)):
			unknown = true
			c.disconnect()
			c.s.servers.hurry()
			c.s.log.Debug("a Redis consumer lost its connection", "queue", c.q.Name, "error", err)
		case noFunction(reply(err)):
			_ = loadLibrary(c.ctx, c.node.client)
		case transient(reply(err)):
			c.disconnect() // the queue may be elsewhere by now
			c.s.servers.hurry()
		default:
			// What this is may pass, as permissions do; the queue is not gone.
			c.s.log.Warn("a Redis queue cannot be read", "queue", c.q.Name, "error", err)
		}
		r.more, r.full = false, false
		select {
		case <-time.After(pause(try)):
			try++
		case <-c.stopped:
			return
		case <-c.ctx.Done():
			return
		}
	}
}

// block waits for something to take.
func (c *consumer) block(r *fetch) error {
	room := c.in.Room()
	if room == 0 {
		return nil
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	name, life := c.name, c.current()
	c.call.unlock()
	wait := min(r.wait, maxBlock, c.s.cfg.lease/3)
	r.args = c.blocking(r, name, room, max(wait.Milliseconds(), 1))
	select {
	case <-c.stopped:
		return nil
	default:
	}
	a, err := c.do(r.args)
	if err == nil {
		err = a.peek()
	}
	if err != nil {
		if answer := reply(err); answer != "" && !transient(answer) {
			err = mapped(err)
		}
		return err
	}
	if len(a.b) == 0 || a.b[0] != '*' {
		return nil
	}
	r.clear()
	for range a.array() {
		a.array()
		if string(a.text()) == c.key {
			r.takeAll(&a, nil)
		} else {
			a.skip()
			r.woken = r.standby == "" // else the wake-up stream is another's
		}
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	if life != c.current() {
		// Struck while it waited: the entries are somebody else's by now.
		return a.err
	}
	if !time.Now().Before(r.until) {
		// It may have been struck, and what was read then does not count.
		c.unread(r)
		return a.err
	}
	c.put(r)
	return a.err
}

// blocking is the read that block waits in. Where there are rules it takes no
// message, it but hears that there is something to fetch.
func (c *consumer) blocking(r *fetch, name string, room int, wait int64) []any {
	switch {
	case !c.rules():
		return append(r.args[:0], "XREADGROUP", "GROUP", group, name, "COUNT", r.ask(room), "BLOCK", wait,
			"STREAMS", c.key, c.key+":wake", ">", ">")
	case r.standby == "":
		return append(r.args[:0], "XREADGROUP", "GROUP", group, name, "COUNT", 1, "BLOCK", wait, "STREAMS", c.key+":wake", ">")
	default:
		return append(r.args[:0], "XREAD", "BLOCK", wait, "STREAMS", c.key+":standby", r.standby)
	}
}

// peek is the error that an answer consists of.
func (a *answer) peek() error {
	if len(a.b) > 0 && a.b[0] == '-' {
		a.line()
		return a.err
	}
	return nil
}

// put hands deliveries to the inbox.
func (c *consumer) put(r *fetch) {
	until := time.Now().Add(c.s.cfg.lease)
	c.mu.Lock()
	for _, h := range r.holds {
		h.life, h.until = c.life, until
		h.prev, h.next = c.holds.prev, &c.holds
		h.prev.next, h.next.prev = h, h
	}
	c.mu.Unlock()
	over := c.in.Put(r.ds...)
	if len(over) > 0 {
		c.mu.Lock()
		for _, d := range over {
			c.add(d.Ref.(*hold), false, unseen)
		}
		c.mu.Unlock()
		c.wake()
	}
	r.clear()
}

// unread gives back, uncounted, what was read.
func (c *consumer) unread(r *fetch) {
	c.mu.Lock()
	unread := make([]settlement, 0, len(r.holds)+len(c.todo))
	for _, h := range r.holds {
		unread = append(unread, settlement{h.id, h.count, false, unseen})
	}
	c.todo = append(unread, c.todo...) // the next call takes it along, whatever else waits
	c.mu.Unlock()
	c.wake()
	r.clear()
}

func (c *consumer) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// rejoin begins a life under the present name. A read under the old one may have
// come after that was struck.
func (c *consumer) rejoin(old string) error {
	a, err := c.do([]any{"FCALL", c.fns.join, "1", c.key, c.name, c.lease(), old})
	if err == nil {
		err = a.peek()
	}
	if err == nil && a.integer() == 0 {
		return driver.ErrNotFound
	}
	return err
}

// recover takes a new name after an answer was lost, and with it only what is
// known to be held; what came with the lost answer is given back uncounted.
func (c *consumer) recover() error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	old := c.name
	args := []any{"FCALL", c.fns.rename, "1", c.key, old, c.base + "-" + strconv.Itoa(c.tail+1), c.lease()}
	c.mu.Lock()
	for h := c.holds.next; h != &c.holds; h = h.next {
		args = append(args, h.id)
	}
	for _, st := range c.todo {
		args = append(args, st.id)
	}
	c.mu.Unlock()
	a, err := c.do(args)
	if err == nil {
		err = a.peek()
	}
	if err != nil {
		return err
	}
	n := a.integer()
	if a.err != nil {
		return a.err
	}
	if n == 1 {
		c.rename()
		return nil
	}
	c.verdict(n)
	if c.isGone() {
		return driver.ErrNotFound
	}
	return c.rejoin(old)
}

// str is b as a string without a copy; b must not change.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
