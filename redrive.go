package polymq

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// RedriveOptions are the options of a Redrive. nil means the defaults.
type RedriveOptions struct {
	// Max is how many messages are moved at most. Default: 0, all.
	Max int
	// Filter says which messages to move; the others stay. It must not keep
	// or settle the delivery. Default: nil, all.
	Filter func(*Delivery) bool
	// Idle is how long the queue has to bring nothing until it counts as done.
	// Default: 1 s.
	Idle time.Duration
}

// headerFirstID is middleware.HeaderFirstID.
const headerFirstID = "x-first-id"

const (
	defaultRedriveIdle = time.Second
	redriveWindow      = 256    // moved at once
	redriveAside       = 10_000 // messages that stay and are held meanwhile
)

// Redrive moves messages from a dead-letter queue back to the queues where
// they died last (see Delivery.Deaths), with the exchange, key and CC that they
// had there, and says how many were moved. Their history goes with them, and
// their attempts are counted anew; one without an ID gets one. Messages that
// have not died stay, as do those that the filter refuses, those that were moved
// by this call and died once more, and those whose queue is gone or refuses
// them, about which the error tells: ErrUnroutable, ErrRejected.
//
// A message is moved at least once: it is taken away when its queue has it, and
// a call that was broken off can be made again. What stays is held while
// Redrive runs, at most 10,000 messages, upon which it ends with an error, and
// given back at its end, which counts as an attempt. Redrive returns when Max
// are moved, when the queue brings nothing for Idle, or when ctx ends, with
// ctx's error.
func (c *Conn) Redrive(ctx context.Context, queue string, opts *RedriveOptions) (moved int, err error) {
	r := &redrive{c: c, opts: orZero(opts), done: map[back]struct{}{}, ways: map[way]driver.Publisher{}}
	err = r.usable(ctx, queue)
	if err == nil {
		err = r.run(ctx, queue)
	}
	return r.moved, c.wrap("redrive", queue, err)
}

// redrive is one call.
type redrive struct {
	c     *Conn
	opts  RedriveOptions
	moved int
	stay  int               // held, not to be moved
	done  map[back]struct{} // what was moved
	ways  map[way]driver.Publisher
	err   error // about the first that stays for a reason of its own
}

// way is where messages go back to, and the exchange that they came from.
type way struct{ queue, exchange string }

// back is a message that went back to a queue. Copies of it can have died in
// several.
type back struct{ queue, id string }

func (r *redrive) usable(ctx context.Context, queue string) error {
	if err := r.c.usable(ctx); err != nil {
		return err
	}
	switch {
	case r.opts.Max < 0:
		return invalid("Max: %d is negative", r.opts.Max)
	case r.opts.Idle < 0:
		return invalid("Idle: %v is negative", r.opts.Idle)
	case r.opts.Idle == 0:
		r.opts.Idle = defaultRedriveIdle
	}
	return routing.CheckName(queue)
}

func (r *redrive) run(ctx context.Context, queue string) (err error) {
	s, err := r.c.subscriber(ctx, queue, SubscriberOptions{Prefetch: redriveAside + redriveWindow}, nil) // a move is not told
	if err != nil {
		return err
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		for _, p := range r.ways {
			_ = p.Close(end) // all its publishes have their outcome
		}
		err = first(err, s.Close(end))
	}()
	for r.opts.Max == 0 || r.moved < r.opts.Max {
		n := redriveWindow
		if r.opts.Max > 0 {
			n = min(n, r.opts.Max-r.moved)
		}
		wait, cancel := context.WithTimeout(ctx, r.opts.Idle)
		ds, err := s.ReceiveBatch(wait, n)
		cancel()
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				return r.err
			}
			return err
		}
		if err := r.move(ctx, ds); err != nil {
			return err
		}
		if r.stay >= redriveAside {
			return first(r.err, fmt.Errorf("%d messages that stay lie before the rest: take some of them out of the queue first", r.stay))
		}
	}
	return r.err
}

// move publishes a batch, and takes away what has arrived.
func (r *redrive) move(ctx context.Context, ds []*Delivery) error {
	var sent arrivals
	pubs := make([]*driver.Publishing, len(ds))
	groups := map[way][]*driver.Publishing{}
	for i, d := range ds {
		if w, m := r.plan(d); m != nil {
			pubs[i] = &driver.Publishing{Message: m, ID: m.ID, Dedup: dedupOf(d, w), Owner: &sent}
			if m.ID == "" { // another client's: it gets one, by which it is known if it dies again
				pubs[i].ID, pubs[i].Dedup = newID(), ""
				r.done[back{w.queue, pubs[i].ID}] = struct{}{}
			}
			groups[w] = append(groups[w], pubs[i])
			sent.Add(1)
		} else {
			r.stay++
		}
	}
	for w, group := range groups {
		p, err := r.publisher(ctx, w)
		if err != nil {
			for _, pub := range group {
				pub.Resolve(err)
			}
			continue
		}
		p.Publish(ctx, group, false)
	}
	if err := sent.wait(ctx, pubs); err != nil {
		return err
	}
	for i, pub := range pubs {
		if pub == nil {
			continue
		}
		if err := pub.Err(); err != nil {
			r.stay++
			r.err = first(r.err, fmt.Errorf("message %q stays: %w", pub.ID, err))
			continue
		}
		r.moved++
		if err := ds[i].Ack(ctx); err != nil && !errors.Is(err, ErrLost) {
			return err
		}
	}
	return nil
}

func (r *redrive) publisher(ctx context.Context, w way) (driver.Publisher, error) {
	if p, ok := r.ways[w]; ok {
		return p, nil
	}
	p, err := r.c.dc.Publisher(ctx, driver.PublisherConfig{Queue: w.queue, Exchange: w.exchange})
	if err == nil {
		r.ways[w] = p
	}
	return p, err
}

// arrivals counts publishings whose outcome is open.
type arrivals struct{ sync.WaitGroup }

func (a *arrivals) Resolved(*driver.Publishing) { a.Done() }

// wait returns when all have their outcome. When ctx ends first, that is
// ErrUnconfirmed.
func (a *arrivals) wait(ctx context.Context, pubs []*driver.Publishing) error {
	defer a.Wait()
	defer context.AfterFunc(ctx, func() {
		for _, pub := range pubs {
			if pub != nil {
				pub.Resolve(unconfirmed(ctx))
			}
		}
	})()
	a.Wait()
	return ctx.Err()
}

// plan is where a delivery goes back to, and as what; nil when it stays.
func (r *redrive) plan(d *Delivery) (way, *driver.Message) {
	deaths := d.Deaths()
	if len(deaths) == 0 {
		return way{}, nil
	}
	last := deaths[0]
	went := back{last.Queue, d.ID}
	if first, ok := d.Header.String(headerFirstID); ok { // a dead letter of middleware.DeadLetter has another ID each time
		went.id = first
	}
	if _, again := r.done[went]; again || r.opts.Filter != nil && !r.opts.Filter(d) {
		return way{}, nil
	}
	if went.id != "" {
		r.done[went] = struct{}{}
	}
	m := *d.Message
	if len(last.Keys) > 0 {
		m.Key = last.Keys[0]
	}
	if len(last.Keys) > 1 {
		m.Header = maps.Clone(m.Header)
		cc := make([]any, len(last.Keys)-1)
		for i, key := range last.Keys[1:] {
			cc[i] = key
		}
		m.Header["CC"] = cc
	}
	return way{last.Queue, last.Exchange}, (*driver.Message)(&m)
}

// dedupOf is the same for every try to move this death of the message.
func dedupOf(d *Delivery, w way) string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q", w.queue, d.ID)
	for _, x := range d.Deaths() {
		fmt.Fprintf(h, " %q %q %d", x.Queue, x.Reason, x.Count)
	}
	return "redrive-" + hex.EncodeToString(h.Sum(nil)[:16])
}
