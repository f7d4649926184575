package nats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	pullExpires   = 30 * time.Second // of one request for messages
	pullHeartbeat = 5 * time.Second  // two missed ones: the request is dead

	// presence is how often a consumer says that it is there; its record runs
	// out after three.
	presence = 10 * time.Second
)

// consumer takes messages for one inbox. One goroutine asks for them (run);
// they are put by the callback of the subscription that they arrive on, and
// the goroutines of subscriptions are nats.go's.
type consumer struct {
	s  *store
	q  *emulate.Queue
	h  *handle
	id string
	in *emulate.Inbox

	relink chan struct{} // cap 1: the connection is another
	drop   chan struct{} // cap 1: a link went dead
	quit   chan struct{}
	done   chan struct{}
	ctl    *natsgo.Subscription // answers Inspect and Purge
	given  *natsgo.Subscription // hears that what was given back is back
	inbox  string               // prefix of given's subjects

	mu     sync.Mutex
	link   *link
	links  map[*link]struct{} // the current one and those that are draining
	holds  map[uint64]*hold
	naks   map[uint64]time.Time // given back, and not known to be back yet
	short  bool                 // room there was, but for holds and naks
	failed int                  // requests refused in a row
	pause  time.Time            // no request before
	closed bool
}

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
	heard    time.Time // of the server
}

// hold is a delivery with what settling it needs.
type hold struct {
	emulate.Delivery
	ack       string
	until     time.Time // the lease runs out, as far as this process knows
	uncounted int       // earlier deliveries that do not count as attempts
}

func (s *store) Consume(ctx context.Context, q *emulate.Queue, in *emulate.Inbox) (emulate.Consumer, error) {
	h := s.newHandle(q)
	err := s.do(ctx, "consuming", func(ctx context.Context) error {
		info, err := s.js.Consumer(ctx, h.stream, consumerName)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			_, err = s.js.CreateConsumer(ctx, h.stream, s.consumerConfig(h))
			return err
		}
		if err != nil {
			return err
		}
		// Whoever has the longer lease decides: a shorter one would end holds
		// that are still being extended in time.
		if cfg := info.CachedInfo().Config; cfg.AckWait < s.opt.lease {
			cfg.AckWait = s.opt.lease
			_, err = s.js.UpdateConsumer(ctx, h.stream, cfg)
		}
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, driver.ErrNotFound) {
		return nil, fmt.Errorf("%w: %w", emulate.ErrGone, err)
	}
	if err != nil {
		return nil, err
	}
	c := &consumer{
		s: s, q: q, h: h, id: rand.Text(), in: in,
		relink: make(chan struct{}, 1), drop: make(chan struct{}, 1),
		quit: make(chan struct{}), done: make(chan struct{}),
		links: map[*link]struct{}{}, holds: map[uint64]*hold{}, naks: map[uint64]time.Time{},
		inbox: s.nc.NewInbox() + ".",
	}
	if c.ctl, err = s.nc.Subscribe(h.held, c.tellHeld); err != nil {
		return nil, wrap(err)
	}
	if c.given, err = s.nc.Subscribe(c.inbox+"*", c.isBack); err != nil {
		c.unsubscribe()
		return nil, wrap(err)
	}
	if err := c.announce(ctx); err != nil {
		c.unsubscribe()
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.unsubscribe()
		return nil, driver.ErrClosed
	}
	s.consumers[c] = struct{}{}
	s.mu.Unlock()
	go c.run()
	return c, nil
}

// run asks for messages while there is room, until the consumer is closed.
func (c *consumer) run() {
	defer close(c.done)
	tick := time.NewTicker(pullHeartbeat)
	defer tick.Stop()
	told := time.Now()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		if wait := c.ask(); wait > 0 {
			again.Reset(wait)
		}
		select {
		case <-c.quit:
			return
		case <-c.in.More():
		case <-c.relink:
			c.mu.Lock()
			clear(c.naks)
			c.mu.Unlock()
			c.retire(func(*link) bool { return true })
		case <-c.drop:
		case <-again.C:
		case now := <-tick.C:
			c.forget(now)
			c.retire(func(l *link) bool {
				return c.s.isLive() && l.promised > 0 && now.Sub(l.heard) > 2*pullHeartbeat+pullHeartbeat/2
			})
			if now.Sub(told) >= presence {
				told = now
				ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
				if err := c.announce(ctx); err != nil {
					c.examine(err)
				}
				cancel()
			}
		}
	}
}

// forget drops holds that ran out without anybody settling them.
func (c *consumer) forget(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for seq, h := range c.holds {
		if now.After(h.until) {
			delete(c.holds, seq)
		}
	}
	for seq, sent := range c.naks {
		if now.Sub(sent) > attemptTimeout {
			delete(c.naks, seq)
		}
	}
}

func (c *consumer) unsubscribe() {
	c.ctl.Unsubscribe()
	if c.given != nil {
		c.given.Unsubscribe()
	}
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
	// What Settle is just giving back must be back before more is asked for, or
	// a message behind it comes first.
	room := min(c.in.Room(), c.in.Prefetch()-len(c.holds)-len(c.naks))
	for l := range c.links {
		room -= l.promised
	}
	c.short = room <= 0 && c.in.Room() > 0
	if room <= 0 {
		return 0
	}
	l := c.link
	if l == nil {
		var err error
		if l, err = c.newLink(); err != nil {
			c.s.cfg.Logger.Warn("nats: cannot subscribe", "queue", c.q.Name, "error", err)
			return time.Second
		}
	}
	body := fmt.Appendf(nil, `{"batch":%d,"expires":%d,"idle_heartbeat":%d}`, room, pullExpires, pullHeartbeat)
	err := c.s.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+c.h.stream+"."+consumerName, l.inbox, body)
	if err != nil {
		return 0 // the connection is gone: relink follows
	}
	l.promised += room
	l.heard = time.Now()
	return 0
}

func (c *consumer) newLink() (*link, error) {
	l := &link{c: c, inbox: c.s.nc.NewInbox()}
	sub, err := c.s.nc.Subscribe(l.inbox, l.receive)
	if err != nil {
		return nil, err
	}
	if err := sub.SetPendingLimits(-1, -1); err != nil {
		return nil, err
	}
	l.sub = sub
	sub.SetClosedHandler(func(string) { c.drained(l) })
	c.link = l
	c.links[l] = struct{}{}
	return l, nil
}

// retire drains the current link if dead says so: what is on its way still
// arrives, and the server forgets its requests.
func (c *consumer) retire(dead func(*link) bool) {
	c.mu.Lock()
	l := c.link
	if l == nil || !dead(l) {
		c.mu.Unlock()
		return
	}
	c.link = nil
	c.mu.Unlock()
	l.sub.Drain()
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
		l.status(m)
		return
	}
	c := l.c
	seq, delivered, ok := parseAckSubject(m.Reply)
	if !ok {
		c.s.cfg.Logger.Error("nats: a message with an acknowledgement subject of unknown form", "subject", m.Reply)
		return
	}
	h := &hold{ack: m.Reply, until: time.Now().Add(c.s.opt.lease)}
	if delivered > 1 {
		h.uncounted = c.uncounted(seq)
	}
	h.Delivery.Queue = c.q.Name
	h.Attempt = max(1, delivered-h.uncounted)
	h.Redelivered = delivered > 1
	h.Seq, h.Gen, h.Ref = seq, uint64(delivered), h
	if err := read(&h.Delivery.Delivery, m); err != nil {
		c.s.cfg.Logger.Warn("nats: a property of a message cannot be read and is left out", "queue", c.q.Name, "sequence", seq, "error", err)
	}
	c.mu.Lock()
	l.heard = time.Now()
	l.promised--
	c.failed = 0
	c.holds[seq] = h
	c.in.Put(&h.Delivery) // with the room it was promised still taken, in ask's eyes
	c.mu.Unlock()
}

// status handles what the server says about a request. One that is over says
// how many messages it has not brought. Where that is not said, the requests
// are given up together: the link is drained, and another one made.
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
		c.examine(fmt.Errorf("nats: %s %s", status, text))
	}
	signal(c.drop)
}

// examine ends the inbox if the queue or its consumer are gone.
func (c *consumer) examine(cause error) {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	err := c.s.once(ctx, func(ctx context.Context) error {
		_, err := c.s.js.Consumer(ctx, c.h.stream, consumerName)
		return err
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) || errors.Is(err, jetstream.ErrConsumerNotFound) {
		c.in.Fail(fmt.Errorf("%w: %w", driver.ErrNotFound, err))
	} else if err != nil {
		c.s.cfg.Logger.Warn("nats: the queue's consumer does not answer", "queue", c.q.Name, "cause", cause, "error", err)
	}
}

// parseAckSubject takes the stream sequence and the count of deliveries from
// $JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<…>.<time>.<pending>, or
// the newer form, which has domain and account hash before the stream.
func parseAckSubject(subject string) (seq uint64, deliveries int, ok bool) {
	var tokens [16]string
	n := 0
	for t := range strings.SplitSeq(subject, ".") {
		if n == len(tokens) {
			return 0, 0, false
		}
		tokens[n] = t
		n++
	}
	at := 4
	switch {
	case n == 9:
	case n >= 11:
		at = 6
	default:
		return 0, 0, false
	}
	deliveries, err1 := strconv.Atoi(tokens[at])
	seq, err2 := strconv.ParseUint(tokens[at+1], 10, 64)
	return seq, deliveries, err1 == nil && err2 == nil && deliveries > 0
}

var (
	ackBody      = []byte("+ACK")
	nakBody      = []byte("-NAK")
	progressBody = []byte("+WPI")
)

func (c *consumer) Settle(ctx context.Context, d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	h := d.Ref.(*hold)
	var err error
	c.mu.Lock()
	lost := time.Now().After(h.until)
	if !lost && o == driver.Nack && delay <= 0 {
		c.naks[d.Seq] = time.Now()
	}
	c.mu.Unlock()
	switch {
	case lost:
		err = driver.ErrLost
	case o == driver.Ack:
		err = c.s.nc.Publish(h.ack, ackBody)
		if err == nil && h.uncounted > 0 {
			err = c.s.nc.PublishMsg(c.record(h, 0))
		}
	case delay <= 0:
		err = c.s.nc.PublishRequest(h.ack, c.inbox+strconv.FormatUint(d.Seq, 10), nakBody)
	default:
		err = c.s.nc.Publish(h.ack, fmt.Appendf(nil, `-NAK {"delay": %d}`, delay.Nanoseconds()))
	}
	c.mu.Lock()
	if c.holds[d.Seq] == h {
		delete(c.holds, d.Seq)
	}
	if err != nil {
		delete(c.naks, d.Seq)
	}
	again := c.short && len(c.naks) == 0
	c.mu.Unlock()
	if again {
		signal(c.drop)
	}
	if errors.Is(err, natsgo.ErrReconnectBufExceeded) {
		// Not sent: it comes again when the lease is over.
		return fmt.Errorf("%w: %w", driver.ErrLost, natsgo.ErrDisconnected)
	}
	return wrap(err)
}

// isBack hears that the server has processed what was given back.
func (c *consumer) isBack(m *natsgo.Msg) {
	seq, err := strconv.ParseUint(m.Subject[len(c.inbox):], 10, 64)
	if err != nil {
		return
	}
	c.mu.Lock()
	delete(c.naks, seq)
	again := c.short && len(c.naks) == 0
	c.mu.Unlock()
	if again {
		signal(c.drop)
	}
}

// Extend tells the server that each message is still being worked on. A hold
// whose lease ran out before it could be extended is lost, however late the
// server notices.
func (c *consumer) Extend(ctx context.Context, ds []*emulate.Delivery) (lost []*emulate.Delivery, err error) {
	now := time.Now()
	alive := make([]*hold, 0, len(ds))
	c.mu.Lock()
	for _, d := range ds {
		h := d.Ref.(*hold)
		if now.After(h.until) {
			lost = append(lost, d)
			if c.holds[d.Seq] == h {
				delete(c.holds, d.Seq)
			}
		} else {
			alive = append(alive, h)
		}
	}
	c.mu.Unlock()
	if len(alive) == 0 {
		return lost, nil
	}
	for _, h := range alive {
		if err := c.s.nc.Publish(h.ack, progressBody); err != nil {
			return lost, wrap(err)
		}
	}
	if err := c.s.flush(ctx); err != nil {
		return lost, wrap(err)
	}
	c.mu.Lock()
	for _, h := range alive {
		h.until = now.Add(c.s.opt.lease)
	}
	c.mu.Unlock()
	return lost, nil
}

func (c *consumer) Flush(ctx context.Context) error { return wrap(c.s.flush(ctx)) }

// closeTimeout bounds how long Close waits for a connection to come back.
const closeTimeout = 10 * time.Second

// Close drains the links, so that whatever the server has sent is here, and
// gives back all that the inbox then holds. Without a connection it waits for
// one; what cannot be given back comes again when its lease is over.
func (c *consumer) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.done
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	close(c.quit)
	<-c.done
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := c.drain(ctx)
	prefetched, handed := c.in.Drain()
	c.mu.Lock()
	clear(c.holds)
	c.mu.Unlock()
	if err == nil {
		err = c.giveBack(ctx, prefetched, handed)
	}
	c.unsubscribe()
	if err == nil {
		err = c.leave(ctx)
	}
	c.s.mu.Lock()
	delete(c.s.consumers, c)
	c.s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("giving back what the subscriber held, which comes again after its lease of %v: %w", c.s.opt.lease, wrap(err))
	}
	return nil
}

// drain waits until nothing can arrive any more.
func (c *consumer) drain(ctx context.Context) error {
	_, err := c.s.session(ctx)
	c.mu.Lock()
	links := make([]*link, 0, len(c.links))
	for l := range c.links {
		links = append(links, l)
	}
	c.link = nil
	c.mu.Unlock()
	for _, l := range links {
		if err != nil || l.sub.Drain() != nil {
			l.sub.Unsubscribe()
			c.drained(l)
		}
	}
	for {
		c.mu.Lock()
		left := len(c.links)
		c.mu.Unlock()
		if left == 0 {
			return err
		}
		select {
		case <-c.drop:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// giveBack returns deliveries to the queue, oldest first. The server counts
// each delivery; those that the application never saw are recorded beside the
// queue before they are returned, so that whoever gets them next can tell.
func (c *consumer) giveBack(ctx context.Context, prefetched, handed []*emulate.Delivery) error {
	if len(prefetched)+len(handed) == 0 {
		return nil
	}
	return c.s.do(ctx, "giving back", func(ctx context.Context) error {
		// The answer to the last record says that all are stored.
		for i, d := range prefetched {
			h := d.Ref.(*hold)
			m := c.record(h, h.uncounted+1)
			if i < len(prefetched)-1 {
				if err := c.s.nc.PublishMsg(m); err != nil {
					return err
				}
			} else if _, err := c.s.publishOne(ctx, m); err != nil {
				if isStreamGone(err) || errors.Is(err, natsgo.ErrNoResponders) {
					return nil // nothing to give back to
				}
				return err
			}
		}
		for _, ds := range [][]*emulate.Delivery{handed, prefetched} {
			for _, d := range ds {
				if err := c.s.nc.Publish(d.Ref.(*hold).ack, nakBody); err != nil {
					return err
				}
			}
		}
		return c.s.nc.FlushWithContext(ctx)
	})
}

// record is the message that says how many deliveries of a message do not
// count; 0 removes it, by a successor that the server removes at once.
func (c *consumer) record(h *hold, uncounted int) *natsgo.Msg {
	m := &natsgo.Msg{
		Subject: c.h.prefix + ".r." + strconv.FormatUint(h.Seq, 10),
		Header:  natsgo.Header{"Nats-Rollup": {"sub"}},
	}
	if uncounted > 0 {
		m.Data = strconv.AppendInt(nil, int64(uncounted), 10)
	} else {
		m.Header["Nats-TTL"] = []string{"1s"}
	}
	return m
}

// uncounted reads the record of a message. Without an answer it is 0, and an
// attempt may be counted that was none.
func (c *consumer) uncounted(seq uint64) int {
	ctx, cancel := context.WithTimeout(context.Background(), attemptTimeout)
	defer cancel()
	n := 0
	err := c.s.once(ctx, func(ctx context.Context) error {
		m, ok, err := c.s.leaderGet(ctx, c.h.stream, getRequest{LastFor: c.h.prefix + ".r." + strconv.FormatUint(seq, 10)})
		if ok && len(m.data) > 0 {
			n, err = strconv.Atoi(string(m.data))
		}
		return err
	})
	if err != nil {
		c.s.cfg.Logger.Warn("nats: the attempts of a message may be counted too high", "queue", c.q.Name, "sequence", seq, "error", err)
		return 0
	}
	return n
}

// announce records in the queue's stream that the consumer is there.
func (c *consumer) announce(ctx context.Context) error {
	m := &natsgo.Msg{
		Subject: c.h.prefix + ".c." + c.id,
		Header:  natsgo.Header{"Nats-Rollup": {"sub"}, "Nats-TTL": {(3 * presence).String()}},
	}
	return c.s.do(ctx, "announcing the subscriber", func(ctx context.Context) error {
		_, err := c.s.publishOne(ctx, m)
		return err
	})
}

// leave removes the record.
func (c *consumer) leave(ctx context.Context) error {
	err := c.s.do(ctx, "removing the subscriber's record", func(ctx context.Context) error {
		return c.s.purge(ctx, c.h.stream, c.h.prefix+".c."+c.id)
	})
	if isStreamGone(err) || errors.Is(err, driver.ErrClosed) {
		return nil
	}
	return err
}

// heldAnswer is what a consumer says when it is asked what it holds.
type heldAnswer struct {
	Consumer string   `json:"consumer"`
	Held     []uint64 `json:"held"`
}

// tellHeld answers a question of Inspect or Purge; a message without a reply
// subject says that the queue may be gone.
func (c *consumer) tellHeld(m *natsgo.Msg) {
	if m.Reply == "" {
		c.examine(errors.New("nats: the queue was deleted"))
		return
	}
	now := time.Now()
	answer := heldAnswer{Consumer: c.id, Held: []uint64{}}
	c.mu.Lock()
	for seq, h := range c.holds {
		if now.Before(h.until) {
			answer.Held = append(answer.Held, seq)
		}
	}
	c.mu.Unlock()
	if body, err := json.Marshal(answer); err == nil {
		c.s.nc.Publish(m.Reply, body)
	}
}

func parseHeld(data []byte) (string, []uint64) {
	var a heldAnswer
	if json.Unmarshal(data, &a) != nil {
		return "", nil
	}
	if a.Held == nil {
		a.Held = []uint64{}
	}
	return a.Consumer, a.Held
}
