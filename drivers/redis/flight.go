package redis

import (
	"errors"
	"slices"
	"strconv"
	"time"
)

// flight is a batch on its way.
type flight struct {
	seq   uint64
	slot  string // of the record that each queue keeps of it
	other string // of that of the flights before and after it
	batch []*item
	calls []*call
	sent  []sent // to each server
	up    bool   // it has not landed; the lane's mutex guards it
	lone  bool   // one message, as was the flight before, and nothing else is under way
	alone bool   // it holds the lane's writing as well as its reading
}

// sent is where calls went, and why they did not if they did not.
type sent struct {
	k   *socket
	err error
}

// call is one queue's part of a batch.
type call struct {
	key   string
	fn    string
	items []*item
	node  *node
	on    int   // in the flight's sent; -1: it was not sent
	err   error // the server's, or why what it did does not count yet
	gone  bool  // the queue
	done  bool

	asked *node // that may have done it, for all we know
	moved bool  // there are several of these
}

// doubt notes a try whose outcome is unknown.
func (c *call) doubt() {
	c.moved = c.moved || c.asked != nil && c.asked != c.node
	c.asked = c.node
}

// doubtful reports that another server than the one that answered may have done
// what was asked: a leader that was replaced, and did not know it.
func (c *call) doubtful() bool { return c.moved || c.asked != nil && c.asked != c.node }

var (
	errNotSent = errors.New("not sent: there is no connection")
	errGap     = errors.New("the batch before is not stored")
)

// untried reports that an error is none of a server: the next try may come at once.
func untried(err error) bool { return err == errNotSent || err == errGap }

// load makes of the batch a call for each queue.
func (f *flight) load() {
	f.calls = f.calls[:0]
	for _, it := range f.batch {
		c := f.find(it.queue.key)
		if c == nil {
			c = f.add()
			*c = call{key: it.queue.key, fn: it.queue.fns.append, items: c.items[:0]}
		}
		c.items = append(c.items, it)
	}
}

// find finds a queue's call; a batch rarely has many queues.
func (f *flight) find(key string) *call {
	for i := len(f.calls) - 1; i >= 0; i-- {
		if f.calls[i].key == key {
			return f.calls[i]
		}
	}
	return nil
}

// add adds a call, one that was used before if there is any.
func (f *flight) add() *call {
	n := len(f.calls)
	if n < cap(f.calls) {
		f.calls = f.calls[:n+1]
	} else {
		f.calls = append(f.calls, nil)
	}
	if f.calls[n] == nil {
		f.calls[n] = new(call)
	}
	return f.calls[n]
}

// unload lets go of what has landed.
func (f *flight) unload() {
	for _, it := range f.batch {
		it.free()
	}
	clear(f.batch)
	for _, c := range f.calls {
		clear(c.items)
	}
	f.batch = f.batch[:0]
}

// to is the place in sent of a socket.
func (f *flight) to(k *socket) int {
	i := slices.IndexFunc(f.sent, func(s sent) bool { return s.k == k })
	if i < 0 {
		i = len(f.sent)
		f.sent = append(f.sent, sent{k: k})
	}
	return i
}

// spoilt reports whether answers on a socket are not to be relied upon.
func (f *flight) spoilt(k *socket) bool {
	for _, s := range f.sent {
		if s.k == k {
			return s.err != nil || k.in.err != nil
		}
	}
	return false
}

// write sends what is not done yet. A queue does its call only after that of the
// flight before, if this one is under way and has one.
func (l *lane) write(f, before *flight, dial bool) {
	f.sent = f.sent[:0]
	for _, c := range f.calls {
		c.on, c.err = -1, errNotSent
		if c.done = c.done || c.empty(); c.done {
			continue
		}
		n, err := l.s.at(c.key)
		var k *socket
		if err == nil {
			k, err = l.socket(n, dial)
		}
		if c.node, c.err = n, err; err != nil {
			continue
		}
		l.use(c.key)
		c.on = f.to(k)
		if s := &f.sent[c.on]; s.err == nil {
			s.err = k.call(c, f, before, l.s.cfg.timeout)
		}
	}
	for i := range f.sent {
		s := &f.sent[i]
		if s.err == nil && !l.s.cfg.safe.none() {
			s.k.words(l.s.cfg.safe.words()...)
			s.k.end()
		}
		if s.err == nil {
			s.err = s.k.flush(l.s.cfg.timeout)
		}
	}
}

// empty reports that nobody waits for any of the messages.
func (c *call) empty() bool {
	return !slices.ContainsFunc(c.items, func(it *item) bool { return it.parcel != nil })
}

var window = strconv.FormatInt(dedupWindow.Milliseconds(), 10)

// call sends a call, or adds it to what flush sends.
func (k *socket) call(c *call, f, before *flight, timeout time.Duration) error {
	n := 7
	for _, it := range c.items {
		_, words := it.send()
		n += words
	}
	first := uint64(0) // none
	if before != nil && before.find(c.key) != nil {
		first = before.seq
	}
	seq := append(strconv.AppendUint(k.command[:0], f.seq, 10), ' ')
	seq = append(append(strconv.AppendUint(seq, first, 10), ' '), f.other...)
	k.command = seq[:0]
	b := appendLine(append(k.out, '*'), n)
	b = appendWord(appendWord(appendWord(appendWord(b, "FCALL"), c.fn), "1"), c.key)
	k.out = appendWord(appendWord(appendWord(b, f.slot), seq), window)
	for _, it := range c.items {
		words, _ := it.send()
		if err := k.put(words, timeout); err != nil {
			return err
		}
	}
	return nil
}

// read takes the answers and resolves what they tell. An error means that something
// is left and must be sent again, with the same number.
func (l *lane) read(f *flight) (err error) {
	wait := l.s.cfg.timeout + l.s.cfg.safe.wait()
	for _, s := range f.sent {
		s.k.wait(wait)
		s.k.look.on = f.lone
	}
	for _, c := range f.calls {
		if c.on < 0 {
			continue
		}
		if s := &f.sent[c.on]; s.err != nil {
			c.err = s.err
		} else {
			c.answered(&s.k.in)
		}
	}
	if !l.s.cfg.safe.none() {
		l.readSafe(f)
	}
	for _, c := range f.calls {
		if e := l.resolve(c); e != nil && (err == nil || untried(err)) {
			err = e
		}
	}
	return err
}

// readSafe hears whether what was done is safe.
func (l *lane) readSafe(f *flight) {
	for i, s := range f.sent {
		err := s.err
		if err == nil {
			err = l.s.cfg.safe.answered(&s.k.in)
		}
		for _, c := range f.calls {
			if c.on == i && c.err == nil && err != nil {
				c.err = err
				c.doubt() // it is done
			}
		}
	}
}

// answered takes the answer to a call.
func (c *call) answered(a *answer) {
	c.gone = false
	for _, it := range c.items {
		it.failed = nil // said by an answer that did not count
	}
	if c.err = a.peek(); c.err != nil {
		return
	}
	if a.next() == '*' {
		for n := a.array(); n > 1; n -= 2 {
			i, text := a.integer(), string(a.text())
			if a.err == nil && i >= 0 && i < int64(len(c.items)) {
				c.items[i].failed = c.refused(serverError(text))
			}
		}
	} else if n := a.integer(); n < 0 {
		c.err = errGap
	} else {
		c.gone = n == 0
	}
	if a.err != nil {
		c.err = a.err
	}
}
