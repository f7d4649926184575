package redis

import (
	"context"
	"errors"
	"fmt"
	"runtime"
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
	defer c.rest()
	beat := c.s.cfg.lease / 3
	rest := beat // the longest without a call
	if c.q.MaxLength > 0 || c.q.MaxBytes > 0 {
		rest = min(beat, c.s.cfg.block) // the limits count what it has room for and is silent about
	}
	timer := time.NewTimer(beat)
	defer timer.Stop()
	r := fetch{swept: time.Now()}
	unknown := false // what the last answer was
	for try := 0; ; {
		room := c.in.Room()
		if c.ahead == nil && (room == 0 || r.full) {
			r.full = false
			c.rest()
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
			if c.ahead != nil { // what it brings is given back by who stops
				_ = c.fetch(&r, 0)
			}
			return
		case <-c.ctx.Done():
			return
		default:
		}
		var err error
		if unknown {
			err = c.recover()
			unknown = err != nil
		}
		if err == nil && (c.ahead != nil || !r.rests()) {
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
		case lost(err) || partly(reply(err)) || c.ahead != nil:
			unknown = true
			c.disconnect()
			c.s.servers.hurry()
			c.s.log.Debug("a Redis consumer lost its connection", "queue", c.q.Name, "error", err)
		case noFunction(reply(err)):
			_ = loadLibrary(c.ctx, c.socket.node.client)
		case transient(reply(err)):
			c.disconnect() // the queue may be elsewhere by now
			c.s.servers.hurry()
		default:
			// What this is may pass, as permissions do; the queue is not gone.
			c.s.log.Warn("a Redis queue cannot be read", "queue", c.q.Name, "error", err)
			c.wake() // what was to be settled along with it goes by itself
		}
		r.more, r.full, r.due = false, false, time.Time{}
		c.rest()
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

// block waits for something to take. What is to be acknowledged goes along.
func (c *consumer) block(r *fetch) error {
	room := c.in.Room()
	if room == 0 {
		return nil
	}
	ask := r.ask(room)
	wait := max(time.Until(r.due), time.Millisecond)
	name, life, ok, err := c.beginBlock(r, ask, wait)
	if !ok {
		return err
	}
	a := &c.socket.in
	if err := a.peek(); err != nil {
		return failed(err)
	}
	r.clear()
	for range a.array() {
		a.array()
		if string(a.text()) == c.key {
			r.takeAll(a, nil)
		} else {
			a.skip()
			r.woken = r.standby == "" // else the wake-up stream is another's
			r.due = time.Time{}
		}
	}
	if len(r.holds) >= ask {
		r.due = time.Time{} // there may be more
	}
	if r.woken && len(r.holds) > 0 {
		// What was given back goes first: the next fetch takes all in their order.
		c.unread(r, life)
		return a.err
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	if life != c.current() {
		// Struck while it waited: the entries are somebody else's by now.
		r.clear()
		r.due = time.Time{}
		switch {
		case a.err != nil:
			return a.err
		case c.isGone():
			return driver.ErrNotFound
		}
		return c.rejoin(name)
	}
	if c.late() {
		// It may have been struck, and what was read then does not count.
		r.due = time.Time{}
		c.unread(r, life)
		return a.err
	}
	c.put(r)
	return a.err
}

// errHalf says that a call was refused whose other half is under way.
var errHalf = errors.New("an acknowledgement was refused")

// beginBlock begins to wait, and acknowledges; not ok: there is something else to be
// settled, for which a fetch is due, or the reader was stopped.
func (c *consumer) beginBlock(r *fetch, ask int, wait time.Duration) (name string, life uint64, ok bool, err error) {
	if err := c.call.lock(c.ctx); err != nil {
		return "", 0, false, err
	}
	defer c.call.unlock()
	select {
	case <-c.stopped:
		return "", 0, false, nil
	default:
	}
	k, name := c.socket, c.name
	life, batch, acks := c.settlements()
	acked := acks == len(batch) && c.acked(k, batch, acks)
	if len(batch) > 0 && !acked {
		c.unsettled(life, batch)
		r.due = time.Time{}
		return "", 0, false, nil
	}
	c.blocking(r, name, ask, wait)
	err = k.send(c.s.cfg.timeout + wait)
	if err == nil && acked {
		err = k.in.acked()
		if answer := reply(err); answer != "" {
			err = fmt.Errorf("%w: %s", errHalf, answer)
		}
	}
	if err != nil {
		c.unsettled(life, batch)
	}
	return name, life, err == nil, err
}

// rests reports whether another fetch would but find what the last one did.
func (r *fetch) rests() bool { return !r.again && !r.more && time.Now().Before(r.due) }

// blocking is the read that block waits in. Where there are rules it takes no
// message, it but hears that there is something to fetch.
func (c *consumer) blocking(r *fetch, name string, ask int, wait time.Duration) {
	k, ms := c.socket, int(wait.Milliseconds())
	switch {
	case !c.rules():
		k.words("XREADGROUP", "GROUP", group, name, "COUNT")
		k.number(ask)
		k.word("BLOCK")
		k.number(ms)
		k.words("STREAMS", c.key, c.wakeKey, ">", ">")
	case r.standby == "":
		k.words("XREADGROUP", "GROUP", group, name, "COUNT", "1", "BLOCK")
		k.number(ms)
		k.words("STREAMS", c.wakeKey, ">")
	default:
		k.words("XREAD", "BLOCK")
		k.number(ms)
		k.words("STREAMS", c.key+":standby", r.standby)
	}
	k.end()
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
	c.taking = c.ahead == nil // else the next fetch has been sent without it
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
	runtime.Gosched() // who waits for it goes on now, and not when this goroutine waits again
}

// unread gives back, uncounted, what was read in a life.
func (c *consumer) unread(r *fetch, life uint64) {
	c.mu.Lock()
	if life != c.life {
		c.mu.Unlock()
		r.clear()
		return
	}
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
	sent := time.Now()
	a, err := c.do([]string{"FCALL", c.fns.join, "1", c.key, c.name, c.lease(), old})
	if err == nil && a.integer() == 0 && a.err == nil {
		return driver.ErrNotFound
	}
	if err == nil {
		err = a.err
	}
	if err == nil {
		c.renewed(c.name, sent)
	}
	return err
}

// recover takes a new name after an answer was lost, and with it only what is
// known to be held; what came with the lost answer is given back uncounted.
func (c *consumer) recover() error {
	if err := c.connect(); err != nil {
		return err
	}
	select {
	case c.call <- struct{}{}:
	case <-c.stopped: // and whoever has call may wait for the server, as named does
		return driver.ErrClosed
	case <-c.ctx.Done():
		return c.ctx.Err()
	}
	defer c.call.unlock()
	old := c.name
	c.unsure = true
	a, err := c.do(append([]string{"FCALL", c.fns.rename, "1", c.key}, c.renaming()...))
	if err != nil {
		return err
	}
	n := a.integer()
	if a.err != nil {
		return a.err
	}
	if c.renamed(n) {
		return nil
	}
	if c.isGone() {
		return driver.ErrNotFound
	}
	return c.rejoin(old)
}

// renaming is the arguments of the function rename, for the next name; the caller holds
// call.
func (c *consumer) renaming() []string {
	args := []string{c.name, c.base + "-" + strconv.Itoa(c.tail+1), c.lease()}
	c.mu.Lock()
	defer c.mu.Unlock()
	for h := c.holds.next; h != &c.holds; h = h.next {
		args = append(args, h.id)
	}
	for _, st := range c.todo {
		args = append(args, st.id)
	}
	return args
}

// renamed heeds the answer of the function rename.
func (c *consumer) renamed(v any) (ok bool) {
	c.unsure = false
	if ok = c.verdict(v); ok {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.rename()
	}
	return ok
}

// named locks call and makes sure of the name: where the answer to its change was
// lost, the server says by the old one that the consumer was struck.
func (c *consumer) named(ctx context.Context) error {
	if err := c.call.lock(ctx); err != nil {
		return err
	}
	if !c.unsure || c.isGone() {
		return nil
	}
	var args []any
	for _, arg := range c.renaming() {
		args = append(args, arg)
	}
	v, err := c.s.fcall(ctx, c.fns.rename, c.key, args...)
	if err != nil {
		c.call.unlock()
		return err
	}
	c.renamed(v)
	return nil
}

// str is b as a string without a copy; b must not change.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
