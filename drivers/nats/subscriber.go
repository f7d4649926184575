package nats

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// presence is how often a consumer says that it is there; its record runs out
// after three.
func (s *store) presence() time.Duration { return min(max(s.opt.lease/3, time.Second), 10*time.Second) }

// consumer takes messages for one inbox. One goroutine asks for them (run), one
// looks up how often those were delivered that are not new (attempts), and one says
// that the consumer is there (present); the others are put by the callback of the
// subscription that they arrive on, and the goroutines of subscriptions are
// nats.go's.
type consumer struct {
	s  *store
	q  *emulate.Queue
	h  *handle
	id string
	in *emulate.Inbox

	prefetch int // the least that in.Prefetch can be

	relink chan struct{}   // cap 1: the connection is another
	drop   chan struct{}   // cap 1: a link went dead
	count  chan struct{}   // cap 1: uncounted has grown
	stop   chan drainCall  // asks run to drain
	saying chan struct{}   // cap 1: one announcement at a time
	doubt  chan error      // cap 1: why the queue may be gone
	ctx    context.Context // ends when Close begins
	quit   context.CancelFunc
	done   sync.WaitGroup
	ctl    *natsgo.Subscription // answers Inspect and Purge
	given  *natsgo.Subscription // hears that what was given back is back
	inbox  string               // prefix of given's subjects

	mu      sync.Mutex
	link    *link
	links   map[*link]struct{} // the current one and those that were left
	holds   map[uint64]*hold
	placing []*emulate.Delivery  // place's, for a moment
	naks    map[uint64]time.Time // given back, and not known to be back yet
	short   bool                 // room there was, but for holds and naks
	quiet   bool                 // the inbox tells of no room: refill sees to it
	holding bool                 // it only settles what it holds
	gone    bool                 // the queue is
	failed  int                  // requests refused in a row
	pause   time.Time            // no request before
	closed  bool

	uncounted []arrival // in the order in which they came
	looking   []arrival // of these, being looked up
	counting  bool      // and what comes now gets in line
}

func (s *store) Consume(ctx context.Context, q *emulate.Queue, in *emulate.Inbox) (emulate.Consumer, error) {
	if isKept(q) {
		return s.consumeKept(ctx, q, in)
	}
	h := s.newHandle(q)
	err := s.do(ctx, "consuming", func(ctx context.Context) error {
		sent := time.Now()
		info, err := s.js.Consumer(ctx, h.stream, consumerName)
		if errors.Is(err, jetstream.ErrConsumerNotFound) {
			info, err = s.js.CreateConsumer(ctx, h.stream, s.consumerConfig(h))
		}
		if err != nil {
			return err
		}
		s.clock.observe(sent, time.Now(), info.CachedInfo().TimeStamp)
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
		s: s, q: q, h: h, id: rand.Text(), in: in, prefetch: in.Prefetch(),
		relink: make(chan struct{}, 1), drop: make(chan struct{}, 1),
		count: make(chan struct{}, 1), stop: make(chan drainCall), saying: make(chan struct{}, 1),
		doubt: make(chan error, 1),
		links: map[*link]struct{}{}, holds: map[uint64]*hold{}, naks: map[uint64]time.Time{},
		inbox: s.nc.NewInbox() + ".",
	}
	c.ctx, c.quit = context.WithCancel(context.Background())
	if c.ctl, err = s.nc.Subscribe(h.held, c.tellHeld); err != nil {
		c.unsubscribe()
		return nil, wrap(err)
	}
	if c.given, err = s.nc.Subscribe(c.inbox+"*", c.isBack); err != nil {
		c.unsubscribe()
		return nil, wrap(err)
	}
	if err := c.announce(ctx); err != nil {
		c.unsubscribe()
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = fmt.Errorf("%w: %w", emulate.ErrGone, err)
		}
		return nil, err
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		c.unsubscribe()
		return nil, driver.ErrClosed
	}
	s.consumers[c] = struct{}{}
	c.done.Go(c.run) // under the mutex: Close waits for them
	c.done.Go(c.attempts)
	c.done.Go(c.present)
	s.mu.Unlock()
	return c, nil
}

// run asks for messages while there is room, until the consumer is closed.
func (c *consumer) run() {
	beat := time.NewTicker(min(c.s.opt.lease/10, longestBeat))
	defer beat.Stop()
	tick := time.NewTicker(min(pullHeartbeat, c.s.presence()))
	defer tick.Stop()
	again := time.NewTimer(time.Hour)
	defer again.Stop()
	for {
		wait := c.ask()
		if soon := c.part(); soon > 0 && (wait == 0 || soon < wait) {
			wait = soon
		}
		if wait > 0 {
			again.Reset(wait)
		}
		select {
		case <-c.ctx.Done():
			return
		case <-c.in.More():
		case <-c.relink:
			c.mu.Lock()
			clear(c.naks)
			c.mu.Unlock()
			c.retire(func(*link) bool { return true })
		case <-c.drop:
		case call := <-c.stop:
			call.done <- c.giveUp(call.ctx)
		case <-again.C:
		case <-beat.C:
			c.probe()
			continue
		case now := <-tick.C:
			c.forget(now)
			c.retire(func(l *link) bool {
				return c.s.isLive() && l.promised > 0 && now.Sub(l.heard) > 2*pullHeartbeat+pullHeartbeat/2
			})
		}
	}
}

// present says at intervals that the consumer is there, and looks whether the queue is
// where that is in doubt. Either may take its time: while the queue's stream has no
// leader nobody answers.
func (c *consumer) present() {
	tick := time.NewTicker(c.s.presence())
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case cause := <-c.doubt:
			c.examine(cause)
			continue
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(c.ctx, attemptTimeout)
		err := c.announce(ctx)
		if err == nil {
			err = c.s.setClock(ctx, c.h.stream)
		}
		cancel()
		if err != nil && c.ctx.Err() == nil {
			c.examine(err)
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
	c.quit()
	if c.ctl != nil {
		c.ctl.Unsubscribe()
	}
	if c.given != nil {
		c.given.Unsubscribe()
	}
}

// closeTimeout bounds how long Close waits for a connection to come back.
const closeTimeout = 10 * time.Second

// Close leaves the links, so that what the server has sent is here, and
// gives back all that the inbox then holds. Without a connection it waits for
// one; what cannot be given back comes again when its lease is over.
func (c *consumer) Close(ctx context.Context) error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		c.done.Wait()
		return nil
	}
	c.closed = true
	c.mu.Unlock()
	c.quit()
	c.done.Wait()
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err := c.drain(ctx)
	if err != nil {
		c.cut()
	}
	c.look(ctx)
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

// drainedMark ends the names of consumers that only hold.
const drainedMark = "-drained"

// record is the name of the consumer's record. The caller holds the mutex.
func (c *consumer) record() string {
	if c.holding {
		return c.id + drainedMark
	}
	return c.id
}

// announce records in the queue's stream that the consumer is there.
func (c *consumer) announce(ctx context.Context) error {
	select {
	case c.saying <- struct{}{}:
		defer func() { <-c.saying }()
	case <-ctx.Done():
		return ctx.Err()
	}
	c.mu.Lock()
	record := c.record()
	c.mu.Unlock()
	m := &natsgo.Msg{
		Subject: c.h.prefix + ".c." + record,
		Header:  natsgo.Header{"Nats-Rollup": {"sub"}, "Nats-TTL": {wholeSeconds(3 * c.s.presence()).String()}},
	}
	return c.s.do(ctx, "announcing the subscriber", func(ctx context.Context) error {
		_, err := c.s.publishOne(ctx, m)
		if err == nil && c.h.counted && !strings.HasSuffix(record, drainedMark) {
			_, err = c.s.publishOne(ctx, c.h.use(usedBody))
		}
		if errors.Is(err, natsgo.ErrNoResponders) { // the queue is gone, or has no leader
			if _, why := c.s.js.Stream(ctx, c.h.stream); why != nil {
				err = why
			}
		}
		return err
	})
}

// leave removes the record.
func (c *consumer) leave(ctx context.Context) error {
	c.mu.Lock()
	record := c.record()
	c.mu.Unlock()
	return c.erase(ctx, record)
}

// erase removes a record; the queue was used until then.
func (c *consumer) erase(ctx context.Context, record string) error {
	err := c.s.do(ctx, "removing the subscriber's record", func(ctx context.Context) error {
		if c.h.counted && !strings.HasSuffix(record, drainedMark) {
			_, err := c.s.publishOne(ctx, c.h.use(usedBody))
			if err != nil && !errors.Is(err, natsgo.ErrNoResponders) {
				return err
			}
		}
		return c.s.purge(ctx, c.h.stream, c.h.prefix+".c."+record)
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
		c.suspect(errors.New("nats: the queue was deleted"))
		return
	}
	now := time.Now()
	answer := heldAnswer{Held: []uint64{}}
	c.mu.Lock()
	answer.Consumer = c.record()
	for seq, h := range c.holds {
		if now.Before(h.until) {
			answer.Held = append(answer.Held, seq)
		}
	}
	for _, as := range [][]arrival{c.looking, c.uncounted} {
		for i := range as { // the rest of it is being written
			if h := as[i].h; now.Before(h.until) {
				answer.Held = append(answer.Held, h.Seq)
			}
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
