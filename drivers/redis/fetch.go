package redis

import (
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// fetch is a fetch and what it told.
type fetch struct {
	sweep, woken bool
	alive        bool
	more         bool // it took as much as it asked for: there may be more
	full         bool // and asked for all that there was room for
	again        bool // something that was given back waits: it goes first
	size         int  // of an entry, as of late; 0: unknown
	wait         time.Duration
	until        time.Time // the lease of the consumer
	standby      string    // another is the one active consumer: where to hear of a change
	args, read   []any
	holds        []*hold
	ds           []*emulate.Delivery
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
	sent := time.Now()
	args := append(r.args[:0], "FCALL", &c.fns.tend, "1", c.key, name, c.lease(), flag(r.sweep), flag(r.woken), ask)
	if c.rules() {
		args = append(args, room)
	}
	args, batch, back := c.settlements(args)
	r.args = args
	whole := c.rules() || ask > 0 && (r.again || back)
	var a, read answer
	var err error
	switch {
	case whole:
		args[1] = &c.fns.fetch
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
	if len(a.b) > 0 && a.b[0] == ':' {
		r.alive = c.verdict(a.integer())
		if c.isGone() {
			return driver.ErrNotFound
		}
		return c.rejoin(name)
	}
	r.alive, r.until = true, sent.Add(c.s.cfg.lease)
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
		if c.rules() && a.err == nil {
			r.standby = string(a.text())
		}
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
