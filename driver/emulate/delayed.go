package emulate

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// delayedQueue is the library's own: messages wait there for the end of their
// delay, as they were published, and no exchange routes to it.
const delayedQueue = "polymq.delayed"

// headerHave is the header of a message in delayedQueue that some of its
// targets did not take: a table of those that have it, "have", and of what it is
// deduplicated by at the others, "id". Its delay is the pause before the next
// try. It is not delivered.
const headerHave = "polymq-delayed-have"

// The most that the goroutine of delays asks of its queue and of its targets.
const (
	delayedPrefetch = 500
	delayedPatience = 5 * time.Second // for one try
	longestPause    = time.Minute     // between tries
	longestWait     = 24 * time.Hour  // for which a message is given back at once
)

// delays routes delayed messages when they are due, by the store's clock. It is
// a subscriber of delayedQueue, in every connection that routes, so that they
// share the work: what is not due it gives back for the rest of the delay.
type delays struct {
	c    *conn
	ctx  context.Context
	stop context.CancelFunc
	wake chan struct{} // cap 1: the queue may be there
	work sync.WaitGroup

	mu      sync.Mutex
	started bool
	ended   bool
}

func (y *delays) init(c *conn) {
	y.c = c
	y.ctx, y.stop = context.WithCancel(context.Background())
	y.wake = make(chan struct{}, 1)
}

// ensureDelayed sees to it that the queue for delayed messages is there: in
// the state that c.topo.current returns afterwards, under delayedQueue.
func (c *conn) ensureDelayed(ctx context.Context) (*Queue, error) {
	if err := c.ensureQueue(ctx, delayedQueue); err != nil {
		return nil, err
	}
	q := c.topo.current().queues[delayedQueue]
	if q == nil {
		return nil, fmt.Errorf("queue %q: %w: deleted at once", delayedQueue, driver.ErrNotFound)
	}
	return q, nil
}

// ensureQueue makes a plain queue where there is none of that name. Whoever
// routes to it makes sure of it first, so nobody need wait for it.
func (c *conn) ensureQueue(ctx context.Context, name string) error {
	_, err := c.declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: name}}})
	if errors.Is(err, driver.ErrConflict) || errors.Is(err, driver.ErrInUse) {
		return nil // somebody has declared it otherwise
	}
	return err
}

// look starts the goroutine where it has something to do.
func (y *delays) look(st *state) {
	if st.queues[delayedQueue] == nil || !y.c.lease.wanted.Load() {
		return
	}
	y.mu.Lock()
	defer y.mu.Unlock()
	if !y.started && !y.ended {
		y.started = true
		y.work.Go(y.run)
	}
	signal(y.wake)
}

func (y *delays) close() {
	y.mu.Lock()
	y.ended = true
	y.mu.Unlock()
	y.stop()
	y.work.Wait()
}

func (y *delays) run() {
	for failed := 0; ; {
		if y.c.topo.current().queues[delayedQueue] == nil {
			select {
			case <-y.wake:
			case <-y.ctx.Done():
				return
			}
			continue
		}
		err := y.serve(&failed)
		if y.ctx.Err() != nil || y.c.closed.Load() {
			return
		}
		if failed == 0 && !errors.Is(err, driver.ErrNotFound) {
			y.c.cfg.Logger.Warn("delayed messages cannot be routed; trying again", "error", err)
		}
		_ = sleep(y.ctx, y.c.ctx, backoff(failed))
		failed++
	}
}

// serve routes what is due until that fails.
func (y *delays) serve(failed *int) error {
	s, err := y.c.subscribe(y.ctx, driver.SubscriberConfig{Queue: delayedQueue, Prefetch: delayedPrefetch})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := within(y.ctx, undoTime)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			y.c.cfg.Logger.Warn("delayed messages could not be given back; they come again", "error", err)
		}
	}()
	buf := make([]*driver.Delivery, 64)
	publishers := map[string]*publisher{}
	for {
		n, err := s.Receive(y.ctx, buf)
		if err != nil {
			return err
		}
		*failed = 0
		now := y.c.store.Now()
		for _, d := range buf[:n] {
			if rest := due(d.Tag.(*Delivery)).Sub(now); rest > 0 {
				rest = min((rest + time.Millisecond - 1).Truncate(time.Millisecond), longestWait) // rounded up
				if err := s.Settle(y.ctx, d, driver.Nack, rest); err != nil && !errors.Is(err, driver.ErrLost) {
					return err
				}
				continue
			}
			to := publishers[d.Exchange]
			if to == nil {
				if len(publishers) == 1000 {
					clear(publishers)
				}
				to = y.c.publisher(d.Exchange, false)
				publishers[d.Exchange] = to
			}
			y.begin(s, d.Tag.(*Delivery), to)
		}
	}
}

// delayedID is what a message is deduplicated by in the queue that all delayed
// messages share: the same ID again by another way is another message, as it is
// where each queue of its own deduplicates. It sorts the targets, which come in no
// order.
func delayedID(pb *driver.Publishing, exchange string, targets []string) string {
	slices.Sort(targets)
	m, h := pb.Message, sha256.New()
	fmt.Fprintf(h, "%q %q %q %q %q %q", cmp.Or(pb.Dedup, pb.ID), exchange, m.Key, m.Header["CC"], m.Header["BCC"], targets)
	return "publish-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// due is when a message in the queue for delayed messages is to be routed, by
// the store's clock.
func due(d *Delivery) time.Time { return d.Stored.Add(d.Message.Delay) }

// delayed is a message that is due and on its way.
type delayed struct {
	y     *delays
	own   string // what this copy of it is deduplicated by
	known int    // targets that have it, as it says itself
	stage delayedStage
}

// delayedStage is where the message was sent last.
type delayedStage uint8

const (
	toExchange   delayedStage = iota
	toUnroutable              // the queue for what no other takes
	toDelayed                 // back, under headerHave
)

func (y *delays) begin(s *subscriber, d *Delivery, to *publisher) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %d %s", s.q.Incarnation, d.Seq, d.Message.ID)
	x := &delayed{y: y, own: "delayed-" + hex.EncodeToString(h.Sum(nil)[:16])}
	m := d.Message
	m.Delay = 0
	v := &move{d: d, from: s.q, to: to, message: &m, judge: x.judge, id: x.own}
	if back, ok := m.Header[headerHave].(map[string]any); ok {
		if id, ok := back["id"].(string); ok {
			v.id = id
		}
		names, _ := back["have"].([]any)
		for _, name := range names {
			if name, ok := name.(string); ok {
				v.have = append(v.have, name)
			}
		}
		m.Header = headerWithout(m.Header, headerHave)
	}
	x.known = len(v.have)
	s.moves.begin(v)
}

// judge has a message wait that a target does not take, without keeping others
// waiting, and without giving it twice to targets that took it: it goes back to
// its queue with their names.
func (x *delayed) judge(v *move, err error) verdict {
	ack, now := verdict{settle: driver.Ack}, verdict{}
	unroutable := errors.Is(err, driver.ErrUnroutable)
	switch {
	case err == nil, errors.Is(err, errNoOther):
		return ack
	case x.stage == toExchange && (unroutable || errors.Is(err, driver.ErrNotFound)):
		x.stage = toUnroutable
		v.to = x.y.toQueue(v.d.Exchange, driver.UnroutableQueue)
		return now
	case x.stage == toExchange:
		if have := v.taken(); len(have) > x.known {
			x.back(v, have)
			return now
		}
	case x.stage == toUnroutable && unroutable:
		ctx, cancel := context.WithTimeout(x.y.ctx, LeaseTime)
		err = x.y.c.ensureQueue(ctx, driver.UnroutableQueue)
		cancel()
		if err == nil {
			return verdict{again: backoff(v.tries)}
		}
	}
	if x.y.ctx.Err() == nil && !errors.Is(err, driver.ErrRejected) {
		x.y.c.cfg.Logger.Warn("a delayed message could not be routed; trying again", "exchange", v.d.Exchange, "key", v.d.Message.Key, "id", v.d.Message.ID, "error", err)
	}
	late := x.y.c.store.Now().Sub(due(v.d))
	return verdict{settle: driver.Nack, delay: min(max(late, time.Second), longestPause)}
}

// back stores the message once more, for after a pause. What it is deduplicated
// by at its targets stays, for those whose answer is late.
func (x *delayed) back(v *move, have []string) {
	m := v.d.Message
	names := make([]any, len(have))
	for i, name := range have {
		names[i] = name
	}
	m.Header = maps.Clone(m.Header)
	if m.Header == nil {
		m.Header = driver.Header{}
	}
	m.Delay, m.Header[headerHave] = time.Second, map[string]any{"id": v.id, "have": names}
	x.stage = toDelayed
	v.to, v.message, v.id = x.y.toQueue(v.d.Exchange, delayedQueue), &m, x.own
}

func (y *delays) toQueue(exchange, queue string) *publisher {
	p := y.c.publisher(exchange, false)
	p.queue = queue
	return p
}
