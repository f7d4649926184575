package redis

import (
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// fetch is what the fetches and blocking reads told so far.
type fetch struct {
	woken   bool
	alive   bool
	more    bool // it took as much as it asked for: there may be more
	full    bool // and asked for all that there was room for
	again   bool // something that was given back waits: it goes first
	size    int  // of an entry, as of late; 0: unknown
	swept   time.Time
	due     time.Time // the next fetch, whatever comes meanwhile
	standby string    // another is the one active consumer: where to hear of a change
	holds   []*hold
	ds      []*emulate.Delivery
}

// request is a fetch that was sent.
type request struct {
	name   string // of the consumer
	life   uint64
	sent   time.Time
	ask    int
	whole  bool // the function reads
	native bool // XREADGROUP does
	room   int
	batch  []settlement
	acked  bool // natively
}

// fetch settles, takes what is there and renews the lease. New entries it reads
// natively, in one pipeline with a function that does the rest; where something
// that was given back waits, the function fetch takes that first. Where much is
// waiting the next one is sent before the entries of this one are read.
func (c *consumer) fetch(r *fetch, room int) error {
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.call.lock(c.ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	q := c.ahead
	c.ahead = nil
	if q == nil {
		var err error
		if q, err = c.request(r, room); err != nil {
			return err
		}
	} else {
		_ = c.socket.SetReadDeadline(time.Now().Add(c.s.cfg.timeout))
	}
	return c.answered(r, q)
}

// request sends a fetch; the caller holds call.
func (c *consumer) request(r *fetch, room int) (*request, error) {
	sweep := time.Since(r.swept) > c.s.cfg.lease/3
	if sweep {
		r.swept = time.Now()
		c.expire()
	}
	q := &request{name: c.name, sent: time.Now(), room: room, ask: r.ask(room)}
	var acks int
	q.life, q.batch, acks = c.settlements()
	q.whole = c.rules() || q.ask > 0 && (r.again || acks < len(q.batch))
	q.native = !q.whole && q.ask > 0
	if q.native {
		// One half is read while the other is worked on.
		q.ask = min(q.ask, (c.in.Prefetch()+1)/2)
	}
	k, fn := c.socket, c.fns.tend
	q.acked = c.acked(k, q.batch, acks)
	if q.whole {
		fn = c.fns.fetch
	}
	k.words("FCALL", fn, "1", c.key, q.name, c.lease(), flag(sweep), flag(r.woken))
	k.number(q.ask)
	if c.rules() {
		k.number(room)
	}
	k.settle(q.batch, acks, q.acked)
	k.end()
	if q.native {
		k.words("XREADGROUP", "GROUP", group, q.name, "COUNT")
		k.number(q.ask)
		k.words("STREAMS", c.key, ">")
		k.end()
	}
	if err := k.send(c.s.cfg.timeout); err != nil {
		c.unsettled(q.life, q.batch)
		return nil, err
	}
	return q, nil
}

// answered takes the answer to a fetch; the caller holds call.
func (c *consumer) answered(r *fetch, q *request) error {
	a := &c.socket.in
	var err error // the first of the server
	if q.acked {
		if err = a.acked(); err != nil {
			c.unsettled(q.life, q.batch)
			q.batch = nil
		}
	}
	if err := a.peek(); err != nil {
		c.unsettled(q.life, q.batch)
		if q.native && reply(err) != "" { // the function is missing, say, and the read went on
			if n, e := a.stream(); e == nil {
				r.take(a, n, nil)
				c.unread(r, q.life)
			}
		}
		return failed(err)
	}
	if q.life != c.current() {
		// Struck while it was under way: the entries are somebody else's by now.
		a.skip()
		if q.native {
			_ = a.pass()
		}
		r.alive = false
		switch {
		case a.err != nil:
			return a.err
		case c.isGone():
			return driver.ErrNotFound
		}
		return c.rejoin(q.name)
	}
	r.woken = false
	if a.next() == ':' {
		n := a.integer()
		if q.native {
			_ = a.pass()
		}
		if a.err != nil {
			c.unsettled(q.life, q.batch)
			return a.err
		}
		r.alive = c.verdict(n)
		if c.isGone() {
			return driver.ErrNotFound
		}
		return c.rejoin(q.name)
	}
	r.alive = true
	c.renewed(q.name, q.sent)
	a.array()
	wait := time.Duration(a.integer()) * time.Millisecond
	if wait >= maxBlock { // the server says no more: nothing is due before
		wait = c.s.cfg.block
	}
	r.due = q.sent.Add(min(wait, c.s.cfg.block, c.s.cfg.lease/3))
	r.again = a.integer() > 0
	r.clear()
	if q.whole {
		counts := make([]int, a.array())
		for i := range counts {
			counts[i] = int(a.integer())
		}
		r.takeAll(a, counts)
		r.takeAll(a, nil)
		if c.rules() && a.err == nil {
			r.standby = string(a.text())
		}
	} else if q.native && a.err == nil {
		n, e := a.stream()
		if err == nil {
			err = e
		}
		if err == nil && n >= q.ask && !r.again {
			err = c.askAhead(r, n)
		}
		r.take(a, n, nil)
	}
	n := len(r.holds)
	if r.again && q.native {
		// The next fetch returns these, and takes them in their place again.
		c.unread(r, q.life)
		r.more, r.full = true, false
	} else if n > 0 && c.late() {
		// It may have been struck: these may be somebody else's by now.
		c.unread(r, q.life)
		r.more, r.full = true, false
	} else {
		r.more = q.ask > 0 && n >= q.ask
		r.full = r.more && q.ask == q.room
		c.put(r)
	}
	if err == nil {
		err = a.err
	}
	return failed(err)
}

// askAhead sends the next fetch while n entries of this one are yet to be read,
// where there will be room for what is worth it.
func (c *consumer) askAhead(r *fetch, n int) (err error) {
	room := c.in.Room() - n
	select {
	case <-c.stopped:
		return nil
	default:
	}
	if room < max(c.in.Prefetch()/4, 1) {
		return nil
	}
	c.ahead, err = c.request(r, room)
	return err
}

// failed is the error of an answer, of the server or why there is none.
func failed(err error) error {
	if answer := reply(err); answer != "" && !transient(answer) {
		return mapped(err)
	}
	return err
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

// stream begins the answer to an XREADGROUP of one stream: it has so many entries,
// which follow.
func (a *answer) stream() (n int, err error) {
	if err := a.peek(); err != nil {
		return 0, err
	}
	if a.array() > 0 {
		a.array()
		a.skip()
		n = a.array()
	}
	return n, a.err
}

// takeAll reads a list of entries into deliveries. Without counts they are new.
func (r *fetch) takeAll(a *answer, counts []int) { r.take(a, a.array(), counts) }

// take is takeAll of a list of n entries that has begun.
func (r *fetch) take(a *answer, n int, counts []int) {
	bytes := 0
	for i := range n {
		h := &hold{count: 1}
		if counts != nil {
			if i >= len(counts) {
				a.fail()
				return
			}
			h.count = counts[i]
		}
		size := a.entry(h)
		if a.err != nil {
			return
		}
		bytes += size
		h.Attempt, h.Redelivered, h.Ref = h.count, h.count > 1, h
		r.holds = append(r.holds, h)
		r.ds = append(r.ds, &h.Delivery)
	}
	if n > 0 {
		r.size = bytes/n + 1
	}
}
