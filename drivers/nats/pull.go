package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
)

const (
	pullExpires   = 30 * time.Second // of one request for messages
	pullHeartbeat = 5 * time.Second  // two missed ones: the request is dead

	// messagesTo ends the subject of a link that its requests name; the others
	// are its probes.
	messagesTo = ".m"
)

// link is one subscription for messages and the requests that name it. A
// request can outlive the connection that it was made on, since nats.go
// subscribes again; so each connection gets a link of its own, and the room
// that was promised on an old one is not promised again before it is drained.
type link struct {
	c     *consumer
	inbox string
	sub   *natsgo.Subscription

	// promised is how many messages the open requests may still bring. Which
	// request a message belongs to is not told: the server takes turns.
	promised int
	heard    time.Time // of the requests: each sends heartbeats

	// fresh is a time before which nothing was sent of what arrives now. A
	// message may have been on its way for long, and its lease with it: the
	// lease counts from fresh. It is when the last probe left to which the echo
	// is here.
	fresh  time.Time
	probes map[uint64]time.Time // without an echo yet, by their number
	probed uint64
	passed bool // one without an echo is no longer among probes

	fence *fence // nil: the link is in use

	came []*hold // the callback's: not yet put, since more is there to be put
}

// together is how many messages are put into the inbox at once, at most.
const together = 64

// arrival is a message that waits to be put into the inbox.
type arrival struct {
	l     *link
	h     *hold
	known bool // how many of its deliveries count
}

// ask requests as many messages as there is room for and none is asked for. A
// result above 0 is how long to wait before the next try.
func (c *consumer) ask() time.Duration {
	if !c.s.isLive() {
		return 0 // relink follows
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0
	}
	if wait := time.Until(c.pause); wait > 0 {
		return wait
	}
	c.hush(false)
	promised := c.promised()
	room := c.room() - promised
	c.short = room <= 0 && c.in.Room() > 0
	if room > 0 {
		l := c.link
		if l == nil {
			var err error
			if l, err = c.newLink(); err != nil {
				c.s.cfg.Logger.Warn("nats: cannot subscribe", "queue", c.q.Name, "error", err)
				return time.Second
			}
		}
		l.request(room)
		promised = c.promised()
	}
	c.hush(promised > 0)
	return 0
}

// refill requests more from where messages arrive and are settled, as long as
// some are on their way: run might have its turn only when there are none left.
// It does so once there is as much room as is still to come, so that requests
// are few. The caller holds the mutex.
func (c *consumer) refill() {
	l := c.link
	if l == nil || !c.quiet || c.closed {
		return
	}
	promised := c.promised()
	least := max(promised, (c.prefetch+3)/4)
	if promised == 0 || c.prefetch-len(c.holds)-len(c.naks)-promised < least || time.Now().Before(c.pause) {
		return
	}
	if room := c.room() - promised; room >= least {
		l.request(room)
	}
}

// room is how many messages may be held that are not; what is asked for takes
// of it. What Settle is just giving back must be back before more is asked for,
// or a message behind it comes first. The caller holds the mutex.
func (c *consumer) room() int {
	return min(c.in.Room(), c.in.Prefetch()-len(c.holds)-len(c.naks))
}

// promised is how many messages are asked for and not placed. The caller holds the mutex.
func (c *consumer) promised() (n int) {
	for l := range c.links {
		n += l.promised
	}
	for _, as := range [][]arrival{c.looking, c.uncounted} {
		for i := range as {
			if _, ok := c.links[as[i].l]; !ok { // it came, and no link counts it
				n++
			}
		}
	}
	return n
}

// hush keeps the inbox from waking run for each message while some are on their
// way: refill sees to more. The caller holds the mutex.
func (c *consumer) hush(quiet bool) {
	if c.quiet != quiet {
		c.quiet = quiet
		c.in.Idle(quiet)
	}
}

// request asks for so many messages; without a connection relink follows. The
// caller holds the mutex.
func (l *link) request(n int) {
	c := l.c
	body := fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, n, pullExpires, pullHeartbeat)
	if c.s.nc.PublishRequest(c.h.next, l.inbox+messagesTo, body) == nil {
		l.promised += n
		l.heard = time.Now()
	}
}

func (c *consumer) newLink() (*link, error) {
	l := &link{c: c, inbox: c.s.nc.NewInbox(), fresh: time.Now(), probes: map[uint64]time.Time{}}
	sub, err := c.s.nc.Subscribe(l.inbox+".*", l.receive)
	if err != nil {
		return nil, err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	l.sub = sub
	sub.SetClosedHandler(func(string) { // by the goroutine that calls receive
		l.arrive()
		c.drained(l)
	})
	c.link = l
	c.links[l] = struct{}{}
	return l, nil
}

// retire leaves the current link if dead says so: run ends it.
func (c *consumer) retire(dead func(*link) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.link; l != nil && dead(l) {
		l.leave(fenceLimit)
	}
}

func (c *consumer) drained(l *link) {
	c.mu.Lock()
	delete(c.links, l)
	if c.link == l {
		c.link = nil
	}
	c.mu.Unlock()
	signal(c.drop)
}

// receive is the callback of a link's subscription.
func (l *link) receive(m *natsgo.Msg) {
	if !strings.HasPrefix(m.Reply, "$JS.ACK.") {
		l.arrive() // what was sent before
		number, err := strconv.ParseUint(m.Subject[len(l.inbox)+1:], 10, 64)
		switch {
		case err == nil && m.Header.Get("Status") == "":
			l.echo(number)
		case err != nil || !l.refused(number):
			l.status(m)
		}
		return
	}
	if h := l.c.read(m); h != nil {
		l.came = append(l.came, h)
	}
	if len(l.came) < together {
		if pending, _, err := m.Sub.Pending(); err == nil && pending > 1 { // this one is counted
			return
		}
	}
	l.arrive()
}

// read makes a hold of a message.
func (c *consumer) read(m *natsgo.Msg) *hold {
	a, ok := parseAckSubject(m.Reply)
	if !ok {
		c.s.cfg.Logger.Error("nats: a message with an acknowledgement subject of unknown form", "subject", m.Reply)
		return nil
	}
	h := &hold{ack: m.Reply}
	h.Attempt = a.deliveries
	h.Redelivered = a.deliveries > 1
	h.Stored = time.Unix(0, a.stored)
	h.Seq, h.Gen, h.Ref = a.seq, uint64(a.deliveries), h
	if err := read(&h.Delivery.Delivery, m); err != nil {
		c.s.cfg.Logger.Warn("nats: a property of a message cannot be read and is left out", "queue", c.q.Name, "sequence", a.seq, "error", err)
	}
	return h
}

// arrive puts what has come.
func (l *link) arrive() {
	if len(l.came) == 0 {
		return
	}
	c := l.c
	now := time.Now()
	c.mu.Lock()
	l.heard = now
	n := 0 // whose deliveries all count
	for _, h := range l.came {
		h.until = l.fresh.Add(c.s.opt.lease)
		if h.Redelivered || c.counting {
			// Whether all its deliveries count is looked up elsewhere; what comes
			// after it waits for its turn.
			c.uncounted = append(c.uncounted, arrival{l: l, h: h})
			c.counting = true
		} else {
			n++
		}
	}
	late := n > 0 && c.place(l, l.came[:n], now)
	uncounted := n < len(l.came)
	c.mu.Unlock()
	if uncounted {
		signal(c.count)
	}
	if late {
		signal(c.drop)
	}
	clear(l.came)
	l.came = l.came[:0]
}

// place puts messages into the inbox, and reports whether one was late instead:
// its lease may have ended on the way, and who settled it now might settle the
// delivery that another subscriber got meanwhile. The caller holds the mutex.
func (c *consumer) place(l *link, hs []*hold, now time.Time) (late bool) {
	c.failed = 0
	if c.quiet && c.promised() <= len(hs) {
		c.hush(false) // before they can be settled: these are the last on their way
	}
	l.promised = max(0, l.promised-len(hs)) // two leaders may answer one request
	c.placing = c.placing[:0]
	for _, h := range hs {
		if !now.Before(h.until) {
			late = true
			continue
		}
		if held := c.holds[h.Seq]; held != nil && now.Before(held.until) {
			continue // a copy, as of a new leader: it is settled by who holds it
		}
		c.holds[h.Seq] = h
		c.placing = append(c.placing, &h.Delivery)
	}
	for _, d := range c.in.Put(c.placing...) {
		// More than was asked for: back with it, uncounted. Should that not get
		// through, it comes again when its lease is over.
		h := d.Ref.(*hold)
		delete(c.holds, h.Seq)
		if c.s.nc.PublishMsg(c.h.record(h.Seq, h.uncounted+1)) == nil {
			_ = c.s.nc.Publish(h.ack, nakBody)
		}
	}
	clear(c.placing)
	c.refill()
	return late
}

// status handles what the server says about a request. One that is over says
// how many messages it has not brought. Where that is not said, the requests
// are given up together: the link is left, and another one made.
func (l *link) status(m *natsgo.Msg) {
	c := l.c
	status, text := m.Header.Get("Status"), m.Header.Get("Description")
	left, err := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
	c.mu.Lock()
	l.heard = time.Now()
	switch {
	case status == "100": // heartbeat
		c.mu.Unlock()
		return
	case err == nil && left >= 0:
		l.promised = max(0, l.promised-left)
		c.mu.Unlock()
		signal(c.drop)
		return
	}
	c.failed++
	c.pause = l.heard.Add(min(10*time.Millisecond<<min(c.failed, 7), time.Second))
	c.mu.Unlock()
	c.retire(func(cur *link) bool { return cur == l })
	if status == "503" || strings.Contains(text, "Deleted") {
		c.suspect(fmt.Errorf("nats: %s %s", status, text))
	}
	signal(c.drop)
}

// suspect has present look whether the queue is gone.
func (c *consumer) suspect(cause error) {
	select {
	case c.doubt <- cause:
	default:
	}
}

// examine ends the inbox if the queue or its consumer are gone.
func (c *consumer) examine(cause error) {
	ctx, cancel := context.WithTimeout(c.ctx, attemptTimeout)
	defer cancel()
	err := c.s.once(ctx, func(ctx context.Context) error {
		_, err := c.s.js.Consumer(ctx, c.h.stream, consumerName)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		c.end(err)
	} else if err != nil && c.ctx.Err() == nil {
		c.s.cfg.Logger.Warn("nats: the queue's consumer does not answer", "queue", c.q.Name, "cause", cause, "error", err)
	}
}

// end ends the consumer of a queue that is gone: what it holds is too.
func (c *consumer) end(err error) {
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.in.Fail(fmt.Errorf("%w: %w", driver.ErrNotFound, err))
}
