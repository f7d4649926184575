package redis

import (
	"context"
	"slices"
	"sync"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// lane takes parcels to the server in batches. The caller that finds it idle sends
// its batch itself; what comes meanwhile goes together in the next one, which one of
// the lane's goroutines sends: when the first has landed, or, if it is much, while
// that is under way.
//
// A batch whose outcome is unknown is sent again until it is known, with the
// same number, by which the server sees whether it has it: so a lost answer
// leaves no second copy, whatever the messages' IDs.
type lane struct {
	s     *store
	name  string
	slots [flights]string
	kick  chan struct{} // a flight is to be made, by one of the lane's goroutines
	left  chan *flight  // one that a caller has made is not done with

	// Who makes a flight takes its batch and sends it holding writing, and lets go
	// of it only with reading in hand: batches are sent one after another, their
	// answers are read in that order, and two are under way at most.
	writing, reading sync.Mutex
	flights          [flights]flight

	mu      sync.Mutex
	queue   []*item
	size    int  // of their words
	flying  int  // flights that are under way, or for which the lane is kicked
	ended   bool // one of the lane's goroutines, which may be the one that a flight needs
	seq     uint64
	lone    bool            // the last flight was of one message
	used    map[string]bool // queues that know the lane
	sockets map[*node]*socket
	mending bool // a flight is made again: nobody else sends anything

	cut func() // interrupt
}

const (
	flights = 2
	// A second flight begins when so much is queued. Less is better off in a
	// larger batch, a bit later.
	muchItems = 128
	muchBytes = 64 << 10
)

func newLane(s *store) *lane {
	l := &lane{
		s: s, name: random(8), kick: make(chan struct{}, flights), left: make(chan *flight, 1),
		used: map[string]bool{}, sockets: map[*node]*socket{},
	}
	l.slots = [flights]string{l.name + "a", l.name + "b"}
	l.cut = l.interrupt
	for range flights {
		s.wg.Go(l.run)
	}
	return l
}

// interrupt breaks what is under way.
func (l *lane) interrupt() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range l.sockets {
		k.interrupt()
	}
}

// begin decides who makes a flight of what was queued: nobody yet, the caller, who
// then holds writing, or one of the lane's goroutines. The caller holds mu.
func (l *lane) begin(wait bool) (lead, kick bool) {
	switch {
	case l.flying == 0:
		l.flying++
		// Who would have to connect could not heed its ctx.
		if wait && len(l.sockets) > 0 && l.writing.TryLock() {
			return true, false
		}
		return false, true
	case l.flying < flights && l.much():
		l.flying++
		return false, true
	}
	return false, false
}

func (l *lane) much() bool { return len(l.queue) >= muchItems || l.size >= muchBytes }

// lead makes one flight and leaves the rest to the lane's goroutines.
func (l *lane) lead() {
	f, before := l.take()
	if f == nil {
		l.writing.Unlock()
		l.pass(nil)
		return
	}
	if err := l.fly(f, before); err != nil {
		l.shed(f, err)
		l.pass(f)
		return
	}
	if l.land(f) {
		l.pass(nil)
	}
}

// pass has the lane's goroutines make a flight, or go on with one.
func (l *lane) pass(f *flight) {
	l.mu.Lock()
	ended := l.ended
	if !ended && f == nil {
		l.kick <- struct{}{} // there is room for all flights
	} else if !ended {
		l.left <- f // only one reads
	}
	l.mu.Unlock()
	if ended {
		l.giveUp(f)
	}
}

// run is a goroutine of the lane.
func (l *lane) run() {
	for l.s.ctx.Err() == nil {
		select {
		case <-l.kick:
			l.drain()
		case f := <-l.left:
			l.mend(f, nil)
			if l.land(f) {
				l.drain()
			}
		case <-l.s.ctx.Done():
		}
	}
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	for {
		select {
		case <-l.kick:
			l.giveUp(nil)
		case f := <-l.left:
			l.giveUp(f)
		default:
			return
		}
	}
}

// giveUp ends a flight that nobody makes any more, since the store is closed.
func (l *lane) giveUp(f *flight) {
	if f != nil {
		abandon(f.batch)
		if !l.land(f) {
			return
		}
	}
	l.mu.Lock()
	l.flying--
	l.mu.Unlock()
	l.clear()
}

// drain makes flights until there is no need for another.
func (l *lane) drain() {
	for {
		l.writing.Lock()
		f, before := l.take()
		if f == nil {
			l.writing.Unlock()
			l.mu.Lock()
			if len(l.queue) == 0 {
				l.flying--
				l.mu.Unlock()
				return
			}
			l.mu.Unlock()
			continue
		}
		if err := l.fly(f, before); err != nil {
			l.mend(f, err)
		}
		if !l.land(f) {
			return
		}
	}
}

// take makes the next flight of what is queued, and says which one is under way
// before it. The caller holds writing.
func (l *lane) take() (f, before *flight) {
	if l.s.ctx.Err() != nil {
		l.clear()
	}
	l.mu.Lock()
	if len(l.queue) == 0 {
		l.mu.Unlock()
		return nil, nil
	}
	if before = &l.flights[l.seq%flights]; !before.up {
		before = nil
	}
	l.seq++
	f = &l.flights[l.seq%flights]
	f.seq, f.slot, f.other, f.up = l.seq, l.slots[l.seq%flights], l.slots[(l.seq+1)%flights], true
	n, size := 0, 0
	for n < len(l.queue) && n < maxBatch && (n == 0 || size+len(l.queue[n].words) <= maxBatchBytes) {
		size += len(l.queue[n].words)
		n++
	}
	if n == len(l.queue) {
		f.batch, l.queue = l.queue, f.batch[:0]
	} else {
		f.batch = append(f.batch[:0], l.queue[:n]...)
		l.queue = slices.Delete(l.queue, 0, n)
	}
	l.size -= size
	lone := n == 1 && before == nil && len(l.queue) == 0
	f.lone, l.lone = lone && l.lone, lone // of many callers one is alone now and then
	l.mu.Unlock()
	f.load()
	return f, before
}

// fly sends a batch and reads what comes of it. The caller holds writing; then it
// holds reading, and writing as well where the flight is alone. An error means that
// something is left, for mend.
func (l *lane) fly(f, before *flight) error {
	l.write(f, before, false)
	l.reading.Lock()
	if f.alone = l.lacks(f); !f.alone {
		l.writing.Unlock()
	}
	return l.read(f)
}

// lacks reports whether something is not under way on the lane's sockets, as the
// flight before was mended, say: then nothing else may be sent before it is.
func (l *lane) lacks(f *flight) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range f.calls {
		if !c.done && (c.on < 0 || l.sockets[c.node] != f.sent[c.on].k) {
			return true
		}
	}
	return false
}

// mend sends again what is left of a flight, until nothing is or the store is closed;
// err is why. The caller holds reading.
func (l *lane) mend(f *flight, err error) {
	l.mu.Lock()
	l.mending = true
	l.mu.Unlock()
	if !f.alone {
		// On these the next one may have been sent, whose answer is not for us.
		l.disconnect(func(*socket) bool { return true })
	}
	for try := 0; ; {
		l.disconnect(f.spoilt)
		if err != nil && !untried(err) {
			l.s.servers.hurry()
			l.library(f)
			l.shed(f, err)
			select {
			case <-time.After(pause(try)):
				try++
			case <-l.s.ctx.Done():
			}
		}
		if l.s.ctx.Err() != nil {
			abandon(f.batch)
			break
		}
		l.write(f, nil, true)
		err = l.read(f)
		if err == nil {
			break
		}
	}
	l.mu.Lock()
	l.mending = false
	l.mu.Unlock()
}

// socket is the lane's connection to a server.
func (l *lane) socket(n *node, dial bool) (*socket, error) {
	l.mu.Lock()
	k, mending := l.sockets[n], l.mending
	l.mu.Unlock()
	switch {
	case dial && k == nil:
		return l.connect(n)
	case k == nil || mending && !dial:
		return nil, errNotSent
	}
	return k, nil
}

func (l *lane) connect(n *node) (*socket, error) {
	l.disconnect(func(k *socket) bool { return k.node.isClosed() })
	k, err := n.socket(l.s.ctx, l.s.cfg)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.sockets[n] = k
	l.mu.Unlock()
	if l.s.ctx.Err() != nil {
		k.interrupt() // whoever closes the store may have been here before
	}
	return k, nil
}

// disconnect closes connections.
func (l *lane) disconnect(which func(*socket) bool) {
	var some []*socket
	l.mu.Lock()
	for n, k := range l.sockets {
		if which(k) {
			some = append(some, k)
			delete(l.sockets, n)
		}
	}
	l.mu.Unlock()
	for _, k := range some {
		_ = k.Close()
	}
}

// library loads the library where a server has not got it.
func (l *lane) library(f *flight) {
	for _, c := range f.calls {
		if !c.done && noFunction(reply(c.err)) {
			_ = loadLibrary(l.s.ctx, c.node.client)
			return
		}
	}
}

// land ends a flight, and reports whether the caller is to make another one.
func (l *lane) land(f *flight) (more bool) {
	f.unload()
	alone := f.alone
	l.mu.Lock()
	f.up = false
	l.mu.Unlock()
	l.reading.Unlock()
	if alone {
		l.writing.Unlock()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.flying == 1 && len(l.queue) > 0 || l.much() {
		return true
	}
	l.flying--
	return false
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
			pipes[n].HDel(ctx, key+":lanes", l.slots[:]...)
		}
		l.mu.Unlock()
	}
	for _, pipe := range pipes {
		_, _ = pipe.Exec(ctx) // else they forget them by and by
	}
}
