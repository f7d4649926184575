package redis

import (
	"context"
	"net"
	"strconv"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// lane takes parcels to the server, one batch at a time. The caller that finds
// it idle sends its batch itself; what comes meanwhile goes together in the
// next ones, which the lane's goroutine sends.
//
// A batch whose outcome is unknown is sent again until it is known, with the
// same number, by which the server sees whether it has it: so a lost answer
// leaves no second copy, whatever the messages' IDs.
type lane struct {
	s    *store
	name string
	kick chan struct{} // cap 1

	mu    sync.Mutex
	queue []*item
	spare []*item // the other buffer of queue
	busy  bool    // somebody sends: a caller, or the lane's goroutine once it is kicked
	ended bool    // the lane's goroutine is gone
	seq   uint64
	used  map[string]bool // queues that know the lane
	conns map[net.Conn]struct{}

	cut func() // interrupt

	// Of whoever is busy.
	to    map[*node]*goredis.Client
	batch []*item
	calls []*call
	left  []*call
}

// call is one queue's part of a batch.
type call struct {
	key   string
	fn    string
	args  []any
	items []*item
	node  *node
	cmd   *goredis.Cmd
	err   error // why what is done does not count yet, or was not tried
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

func newLane(s *store) *lane {
	l := &lane{s: s, name: random(8), kick: make(chan struct{}, 1), used: map[string]bool{}, to: map[*node]*goredis.Client{}, conns: map[net.Conn]struct{}{}}
	l.cut = l.interrupt
	s.wg.Go(l.run)
	return l
}

// client is the lane's connection to a server.
func (l *lane) client(n *node) *goredis.Client {
	if c := l.to[n]; c != nil {
		return c
	}
	for old := range l.to {
		if old.isClosed() {
			delete(l.to, old)
		}
	}
	o := l.s.cfg.options(n.addr)
	o.PoolSize = 1
	o.ReadTimeout += l.s.cfg.safe.wait()
	dial := o.Dialer
	o.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		lc := &laneConn{Conn: c, l: l}
		l.mu.Lock()
		l.conns[lc] = struct{}{}
		l.mu.Unlock()
		return lc, nil
	}
	c := goredis.NewClient(o)
	n.own(c)
	l.to[n] = c
	return c
}

// laneConn is a connection that interrupt finds.
type laneConn struct {
	net.Conn
	l *lane
}

func (c *laneConn) Close() error {
	c.l.mu.Lock()
	delete(c.l.conns, c)
	c.l.mu.Unlock()
	return c.Conn.Close()
}

// interrupt breaks what is under way: go-redis does not notice the end of a ctx
// while it waits for an answer.
func (l *lane) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		_ = c.SetDeadline(time.Unix(1, 0))
	}
}

// pass makes the lane's goroutine the one who is busy.
func (l *lane) pass() {
	l.mu.Lock()
	if l.ended {
		l.mu.Unlock()
		l.abandon()
		return
	}
	l.kick <- struct{}{} // there is room: only one is busy
	l.mu.Unlock()
}

// lead sends one batch and leaves the rest to the lane's goroutine.
func (l *lane) lead() {
	l.take()
	if l.send() == nil && l.rest() {
		return
	}
	l.pass()
}

// rest ends being busy where nothing is queued.
func (l *lane) rest() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) > 0 {
		return false
	}
	l.busy = false
	return true
}

// run is the lane's goroutine: it sends while it is kicked, and what must be
// sent again.
func (l *lane) run() {
	for open := true; open; {
		select {
		case <-l.kick:
			if !l.drain() {
				l.abandon()
				open = false
			}
		case <-l.s.ctx.Done():
			open = false
		}
	}
	l.mu.Lock()
	l.ended = true
	passed := len(l.kick) > 0
	l.mu.Unlock()
	if passed {
		l.abandon()
	}
}

// drain sends all there is; false when the store was closed before that.
func (l *lane) drain() bool {
	for try := 0; ; {
		if len(l.batch) == 0 {
			if l.rest() {
				return true
			}
			l.take()
		}
		if l.send() == nil {
			try = 0
			continue
		}
		select {
		case <-time.After(pause(try)):
			try++
		case <-l.s.ctx.Done():
			return false
		}
	}
}

// take makes the next batch of what is queued.
func (l *lane) take() {
	l.mu.Lock()
	n, size := 0, 0
	for n < len(l.queue) && n < maxBatch && (n == 0 || size+len(l.queue[n].body) <= maxBatchBytes) {
		size += len(l.queue[n].body)
		n++
	}
	if n == len(l.queue) {
		l.batch, l.queue, l.spare = l.queue, l.spare[:0], l.batch[:0]
	} else {
		l.batch = append(l.batch[:0], l.queue[:n]...)
		l.queue = append(l.queue[:0], l.queue[n:]...)
	}
	l.seq++
	l.mu.Unlock()
	for _, c := range l.calls {
		*c = call{args: c.args, items: c.items[:0]}
	}
	l.calls = l.calls[:0]
	for _, it := range l.batch {
		c := l.callFor(it.queue)
		c.items = append(c.items, it)
	}
}

// callFor finds the queue's call in the batch; a batch rarely has many queues.
func (l *lane) callFor(q *queue) *call {
	for i := len(l.calls) - 1; i >= 0; i-- {
		if l.calls[i].key == q.key {
			return l.calls[i]
		}
	}
	if len(l.calls) < cap(l.calls) {
		l.calls = l.calls[:len(l.calls)+1]
		if c := l.calls[len(l.calls)-1]; c != nil {
			c.key, c.fn = q.key, q.fns.append
			c.items = c.items[:0]
			return c
		}
		l.calls = l.calls[:len(l.calls)-1]
	}
	c := &call{key: q.key, fn: q.fns.append}
	l.calls = append(l.calls, c)
	return c
}

var window = strconv.FormatInt(dedupWindow.Milliseconds(), 10)

// send sends the batch, or what is left of it, and resolves what the answers
// tell. An error means that something is left and must be sent again, with the
// same number.
func (l *lane) send() error {
	ctx := context.Background()
	left := l.left[:0]
	for _, c := range l.calls {
		if c.done {
			continue
		}
		c.args = append(c.args[:0], "FCALL", &c.fn, "1", &c.key, &l.name, &l.seq, &window)
		some := false
		for _, it := range c.items {
			if it.parcel == nil {
				// It keeps its place: the server answers by it.
				c.args = append(c.args, "", "0")
				continue
			}
			some = true
			c.args = append(c.args, &it.dedup, &it.count)
			for i := range it.fields {
				c.args = append(c.args, &it.fields[i].Name, &it.fields[i].Value)
			}
			c.args = append(c.args, &bodyField, &it.text)
		}
		if !some {
			c.done = true
			continue
		}
		c.cmd = goredis.NewCmd(ctx, c.args...)
		c.node, c.err = l.s.at(c.key)
		left = append(left, c)
		l.use(c.key)
	}
	l.left = left
	for i := 0; i < len(left); {
		from := i
		for i < len(left) && left[i].node == left[from].node {
			i++
		}
		l.exchange(ctx, left[from:i])
	}
	var err error
	for _, c := range left {
		if e := l.resolve(c); e != nil {
			err = e
		}
	}
	if err == nil {
		for i, it := range l.batch {
			it.free()
			l.batch[i] = nil
		}
		l.batch = l.batch[:0]
		return nil
	}
	l.s.servers.hurry()
	l.shed(err)
	return err
}

// exchange sends calls to one server.
func (l *lane) exchange(ctx context.Context, calls []*call) {
	n := calls[0].node
	if n == nil {
		return // nobody holds these queues
	}
	client := l.client(n)
	safe := &l.s.cfg.safe
	if len(calls) == 1 && safe.none() {
		_ = client.Process(ctx, calls[0].cmd)
	} else {
		pipe := client.Pipeline()
		for _, c := range calls {
			_ = pipe.Process(ctx, c.cmd)
		}
		if safe.none() {
			exec(ctx, pipe)
		} else {
			last := safe.command(ctx)
			_ = pipe.Process(ctx, last)
			exec(ctx, pipe)
			err := safe.unsafe(last)
			for _, c := range calls {
				c.err = err
			}
		}
	}
	for _, c := range calls {
		if noFunction(reply(c.cmd.Err())) {
			_ = loadLibrary(ctx, n.client)
			return
		}
	}
}

// exec sends a pipeline of *goredis.Cmd whose answers are never nil. Where the server
// refuses the connection the client returns that, but leaves the commands as if
// they had been done.
func exec(ctx context.Context, pipe goredis.Pipeliner) {
	cmds, err := pipe.Exec(ctx)
	if err == nil {
		return
	}
	for _, cmd := range cmds {
		if c := cmd.(*goredis.Cmd); c.Err() == nil && c.Val() == nil {
			c.SetErr(err)
		}
	}
}

// use notes a queue that is told of the lane. Of very many, those it had before
// forget it by themselves.
func (l *lane) use(key string) {
	l.mu.Lock()
	if len(l.used) == 1000 {
		clear(l.used)
	}
	l.used[key] = true
	l.mu.Unlock()
}

// leave has the queues forget the lanes.
func (s *store) leave(ctx context.Context) {
	pipes := map[*node]goredis.Pipeliner{}
	for _, l := range s.lanes {
		l.mu.Lock()
		for key := range l.used {
			n, err := s.at(key)
			if err != nil {
				continue
			}
			if pipes[n] == nil {
				pipes[n] = n.client.Pipeline()
			}
			pipes[n].HDel(ctx, key+":lanes", l.name)
		}
		l.mu.Unlock()
	}
	for _, pipe := range pipes {
		_, _ = pipe.Exec(ctx) // else they forget them by and by
	}
}
