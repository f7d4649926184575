package redis

import (
	"errors"
	"strconv"
	"time"
	"unsafe"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// read is the consumer's goroutine that fills the inbox. A fetch takes what is
// there, what was given back first; when nothing is left, it blocks in the
// stream and in the queue's wake-up stream, into which every return writes.
func (c *consumer) read() {
	defer close(c.ended)
	defer c.disconnect()
	beat := c.s.cfg.lease / 3
	timer := time.NewTimer(beat)
	defer timer.Stop()
	var r fetch
	unknown := false // what the last answer was
	swept := time.Now()
	for try := 0; ; {
		room := c.in.Room()
		if room == 0 || r.full {
			r.full = false
			timer.Reset(beat)
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
		case lost(err):
			unknown = true
			c.disconnect()
			c.s.log.Debug("a Redis consumer lost its connection", "queue", c.q.Name, "error", err)
		case noFunction(reply(err)):
			_ = loadLibrary(c.ctx, c.s.client)
		case !transient(reply(err)):
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

// fetch is a fetch and what it told.
type fetch struct {
	sweep, woken bool
	alive        bool
	more         bool // it took as much as it asked for: there may be more
	full         bool // and asked for all that there was room for
	again        bool // something that was given back waits: it goes first
	size         int  // of an entry, as of late; 0: unknown
	wait         time.Duration
	args, read   []any
	holds        []*hold
	ds           []*emulate.Delivery
}

// connect makes sure of a connection of the reader's own.
func (c *consumer) connect() error {
	if c.conn != nil {
		return nil
	}
	conn := c.s.blocks.Conn()
	id, err := conn.ClientID(c.ctx).Result()
	if err != nil {
		_ = conn.Close()
		return err
	}
	c.conn = conn
	c.connMu.Lock()
	c.connID = id
	c.connMu.Unlock()
	return nil
}

func (c *consumer) disconnect() {
	c.connMu.Lock()
	c.connID = 0
	c.connMu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// do sends a command. The answer lasts until the next one.
func (c *consumer) do(args []any) (answer, error) {
	cmd := goredis.NewRawWriteToCmd(c.ctx, c.first.empty(), args...)
	err := c.conn.Process(c.ctx, cmd)
	if err != nil && !errors.Is(err, goredis.Nil) {
		return answer{}, err
	}
	return answer{b: c.first.b}, nil
}

// both sends two commands in one go.
func (c *consumer) both(first, second []any) (a, b answer, err error) {
	pipe := c.conn.Pipeline()
	_ = pipe.Process(c.ctx, goredis.NewRawWriteToCmd(c.ctx, c.first.empty(), first...))
	_ = pipe.Process(c.ctx, goredis.NewRawWriteToCmd(c.ctx, c.second.empty(), second...))
	_, err = pipe.Exec(c.ctx)
	if err != nil && !errors.Is(err, goredis.Nil) {
		return a, b, err
	}
	return answer{b: c.first.b}, answer{b: c.second.b}, nil
}

// fetch settles, takes what is there and renews the lease. New entries it reads
// natively, in one pipeline with a function that does the rest; where something
// that was given back waits, the function fetch takes that first.
func (c *consumer) fetch(r *fetch, room int) error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	ask, name := r.ask(room), c.name
	args := append(r.args[:0], "FCALL", fnTend, "1", c.key, name, c.lease(), flag(r.sweep), flag(r.woken), ask)
	args, batch, back := c.settlements(args)
	r.args = args
	whole := ask > 0 && (r.again || back)
	var a, read answer
	var err error
	switch {
	case whole:
		args[1] = fnFetch
		a, err = c.do(args)
	case ask == 0:
		a, err = c.do(args)
	default:
		r.read = append(r.read[:0], "XREADGROUP", "GROUP", group, name, "COUNT", ask, "STREAMS", c.key, ">")
		a, read, err = c.both(args, r.read)
	}
	if err == nil {
		err = a.peek()
	}
	if err != nil {
		c.unsettled(batch)
		if read.b != nil { // the function is missing, say, and the read went on
			r.clear()
			r.takeRead(&read)
			c.unread(r)
		}
		if answer := reply(err); answer != "" && !transient(answer) {
			err = mapped(err)
		}
		return err
	}
	r.woken = false
	if a.b[0] == ':' {
		r.alive = c.verdict(a.integer())
		if c.isGone() {
			return driver.ErrNotFound
		}
		return c.rejoin(name)
	}
	r.alive = true
	size := len(a.b) + len(read.b)
	a.array()
	r.wait = time.Duration(a.integer()) * time.Millisecond
	r.again = a.integer() > 0
	r.clear()
	if whole {
		counts := make([]int, a.array())
		for i := range counts {
			counts[i] = int(a.integer())
		}
		r.takeAll(&a, counts)
		r.takeAll(&a, nil)
	} else if read.b != nil && a.err == nil {
		r.takeRead(&read)
		a.err = read.err
	}
	n := len(r.holds)
	if n > 0 {
		r.size = size/n + 1
	}
	if r.again && !whole && ask > 0 {
		// The next fetch returns these, and takes them in their place again.
		c.unread(r)
		r.more, r.full = true, false
		return r.failed(&a)
	}
	r.more = ask > 0 && n >= ask
	r.full = r.more && ask == room
	c.put(r)
	return r.failed(&a)
}

// failed is the error of an answer, of the server or malformed.
func (r *fetch) failed(a *answer) error {
	if answer := reply(a.err); answer != "" && !transient(answer) {
		return mapped(a.err)
	}
	return a.err
}

// ask is how many entries to ask for, so that an answer is neither so large
// that the server is held up by it nor that memory is.
func (r *fetch) ask(room int) int {
	const most, first, bytes = 1000, 64, 4 << 20
	if r.size == 0 {
		return min(room, first)
	}
	return min(room, most, max(bytes/r.size, 1))
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
	name, life := c.name, c.life
	c.call.unlock()
	wait := min(r.wait, maxBlock, c.s.cfg.lease/3)
	args := append(r.args[:0], "XREADGROUP", "GROUP", group, name, "COUNT", r.ask(room), "BLOCK", max(wait.Milliseconds(), 1),
		"STREAMS", c.key, c.key+":wake", ">", ">")
	r.args = args
	select {
	case <-c.stopped:
		return nil
	default:
	}
	a, err := c.do(args)
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
			r.woken = true
		}
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	if life != c.life {
		// Struck while it waited: the entries are somebody else's by now.
		return a.err
	}
	c.put(r)
	return a.err
}

// peek is the error that an answer consists of.
func (a *answer) peek() error {
	if len(a.b) > 0 && a.b[0] == '-' {
		a.line()
		return a.err
	}
	return nil
}

func (r *fetch) clear() {
	clear(r.holds)
	clear(r.ds)
	r.holds, r.ds = r.holds[:0], r.ds[:0]
}

// takeRead reads the answer to an XREADGROUP of one stream.
func (r *fetch) takeRead(a *answer) {
	if a.peek() == nil && a.array() > 0 {
		a.array()
		a.skip()
		r.takeAll(a, nil)
	}
}

// takeAll reads a list of entries into deliveries. Without counts they are new.
func (r *fetch) takeAll(a *answer, counts []int) {
	for i := range a.array() {
		h := &hold{count: 1}
		if counts != nil {
			if i >= len(counts) {
				a.fail()
				return
			}
			h.count = counts[i]
		}
		a.entry(h)
		if a.err != nil {
			return
		}
		h.Attempt, h.Redelivered, h.Ref = h.count, h.count > 1, h
		r.holds = append(r.holds, h)
		r.ds = append(r.ds, &h.Delivery)
	}
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
	for _, h := range r.holds {
		c.todo = append(c.todo, settlement{h.id, h.count, false, unseen})
	}
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
	a, err := c.do([]any{"FCALL", fnJoin, "1", c.key, c.name, c.lease(), old})
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
	args := []any{"FCALL", fnRename, "1", c.key, old, c.base + "-" + strconv.Itoa(c.tail+1), c.lease()}
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
