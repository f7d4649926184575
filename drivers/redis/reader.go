package redis

import (
	"errors"
	"strconv"
	"time"
	"unsafe"

	goredis "github.com/redis/go-redis/v9"

	"github.com/polymq/polymq/driver"
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
	size         int  // of an entry, as of late; 0: unknown
	wait         time.Duration
	args         []any
	ds           []*hold
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

func (c *consumer) do(args []any) (answer, error) {
	cmd := goredis.NewRawCmd(c.ctx, args...)
	err := c.conn.Process(c.ctx, cmd)
	if err != nil && !errors.Is(err, goredis.Nil) {
		return answer{}, err
	}
	return answer{b: cmd.Val()}, nil
}

// fetch settles, takes what is there and renews the lease.
func (c *consumer) fetch(r *fetch, room int) error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	ask := r.ask(room)
	args := append(r.args[:0], "FCALL", fnFetch, "1", c.key, c.name, c.lease(), ask, flag(r.sweep), flag(r.woken))
	args, batch := c.settlements(args)
	r.args = args
	a, err := c.do(args)
	if err == nil {
		err = a.peek()
	}
	if err != nil {
		c.unsettled(batch)
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
		return c.rejoin()
	}
	r.alive = true
	size := len(a.b)
	a.array()
	r.wait = time.Duration(a.integer()) * time.Millisecond
	counts := make([]int, a.array())
	for i := range counts {
		counts[i] = int(a.integer())
	}
	r.ds = r.ds[:0]
	for i := range a.array() {
		if i >= len(counts) {
			a.fail()
			break
		}
		r.take(&a, counts[i], true)
	}
	for range a.array() {
		r.take(&a, 1, false)
	}
	if n := len(r.ds); n > 0 {
		r.size = size/n + 1
	}
	r.more = ask > 0 && len(r.ds) >= ask
	r.full = r.more && ask == room
	c.put(r)
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
	r.ds = r.ds[:0]
	for range a.array() {
		a.array()
		ours := string(a.text()) == c.key
		for range a.array() {
			if ours {
				r.take(&a, 1, false)
			} else {
				a.skip()
				r.woken = true
			}
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

// take reads an entry into a delivery.
func (r *fetch) take(a *answer, count int, again bool) {
	h := &hold{count: count}
	a.entry(h)
	if a.err != nil {
		return
	}
	h.Attempt, h.Redelivered, h.Ref = count, again, h
	h.Seq = h.id.ms<<22 | h.id.seq&(1<<22-1) // no server makes 4 million entries in a millisecond
	r.ds = append(r.ds, h)
}

// put hands deliveries to the inbox.
func (c *consumer) put(r *fetch) {
	until := time.Now().Add(c.s.cfg.lease)
	c.mu.Lock()
	for _, h := range r.ds {
		h.life, h.until = c.life, until
		h.prev, h.next = c.holds.prev, &c.holds
		h.prev.next, h.next.prev = h, h
	}
	c.mu.Unlock()
	for _, h := range r.ds {
		c.in.Put(&h.Delivery)
	}
	clear(r.ds)
}

func (c *consumer) isGone() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone
}

// rejoin begins a life under the present name.
func (c *consumer) rejoin() error {
	a, err := c.do([]any{"FCALL", fnJoin, "1", c.key, c.name, c.lease()})
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
		args = append(args, h.id.String())
	}
	for _, st := range c.todo {
		args = append(args, st.id.String())
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
	return c.rejoin()
}

// str is b as a string without a copy; b must not change.
func str(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
