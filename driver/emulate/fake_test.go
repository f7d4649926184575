package emulate

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
)

// world is a broker in memory. It is slow, forgets and loses answers as far as
// the clients that reach it through a fake are made to.
type world struct {
	mu        sync.Mutex
	version   Version
	elements  map[string][]byte
	leases    map[string]Version
	restarted time.Time
	watchers  map[*fake]func()
	queues    map[string]*fakeQueue
}

type fakeQueue struct {
	messages []*Delivery
	seq      uint64
	seen     map[string]bool
	held     map[*Delivery]bool
	in       *Inbox
	extended int
	lose     bool // the next Extend finds all holds lost
}

func newWorld() *world {
	return &world{
		version:  Version{"e1", 1},
		elements: map[string][]byte{},
		leases:   map[string]Version{},
		watchers: map[*fake]func(){},
		queues:   map[string]*fakeQueue{},
	}
}

// forget is a restart that loses the leases. The version gets a new epoch.
func (w *world) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.leases)
	w.restarted = time.Now()
	w.version = Version{fmt.Sprintf("e%d", time.Now().UnixNano()), 1}
}

// fake is one client's way to the world.
type fake struct {
	*world
	lease time.Duration

	// trouble is called before and after every call's effect; an error makes
	// the call fail there.
	trouble func(ctx context.Context, call string, after bool) error
	// deaf drops hints about changes.
	deaf func() bool
	// refuse, where set, is the outcome of an append.
	refuse func(p *Parcel) error

	crashed atomic.Bool
	appends atomic.Int64
}

func (w *world) client() *fake { return &fake{world: w} }

// step runs a call's effect between the troubles.
func (f *fake) step(ctx context.Context, call string, effect func() error) error {
	for _, after := range []bool{false, true} {
		if f.crashed.Load() {
			return driver.ErrClosed
		}
		if f.trouble != nil {
			if err := f.trouble(ctx, call, after); err != nil {
				return err
			}
		}
		if f.crashed.Load() {
			return driver.ErrClosed
		}
		if !after {
			f.mu.Lock()
			err := effect()
			f.mu.Unlock()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *fake) Features() driver.Features { return driver.Features{Backend: "fake", Lease: f.lease} }
func (f *fake) Native() any               { return nil }

func (f *fake) LoadTopology(ctx context.Context, since Version) (ch Changes, err error) {
	err = f.step(ctx, "load", func() error {
		ch = Changes{Version: f.version}
		if since != f.version {
			ch.Full = true
			for name, data := range f.elements {
				ch.Elements = append(ch.Elements, Element{name, data})
			}
		}
		return nil
	})
	return ch, err
}

func (f *fake) ApplyTopology(ctx context.Context, at Version, elements []Element) (v Version, err error) {
	var watchers []func()
	err = f.step(ctx, "apply", func() error {
		if at != f.version {
			return ErrStale
		}
		f.version.N++
		v = f.version
		for _, e := range elements {
			if e.Data == nil {
				delete(f.elements, e.Name)
			} else {
				f.elements[e.Name] = e.Data
			}
		}
		for other, changed := range f.watchers {
			if other.deaf == nil || !other.deaf() {
				watchers = append(watchers, changed)
			}
		}
		for _, changed := range watchers {
			changed()
		}
		return nil
	})
	return v, err
}

func (f *fake) WatchTopology(_ context.Context, changed func(back bool)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.watchers[f] = changed
	return nil
}

func (f *fake) RenewLease(ctx context.Context, client string, v Version) error {
	return f.step(ctx, "renew", func() error {
		if v != f.version {
			return ErrStale
		}
		f.leases[client] = v
		return nil
	})
}

func (f *fake) Leases(ctx context.Context) (leases []Lease, restarted time.Duration, err error) {
	restarted = -1
	err = f.step(ctx, "leases", func() error {
		if !f.restarted.IsZero() {
			restarted = time.Since(f.restarted)
		}
		for client, v := range f.leases {
			leases = append(leases, Lease{client, v})
		}
		return nil
	})
	return leases, restarted, err
}

func (f *fake) EndLease(ctx context.Context, client string) error {
	return f.step(ctx, "end", func() error {
		delete(f.leases, client)
		return nil
	})
}

func (f *fake) Attach(q *Queue) { q.Handle = q.Incarnation }

func (f *fake) CreateQueue(ctx context.Context, q *Queue) error {
	return f.step(ctx, "create", func() error {
		if f.queues[q.Incarnation] == nil {
			f.queues[q.Incarnation] = &fakeQueue{seen: map[string]bool{}, held: map[*Delivery]bool{}}
		}
		return nil
	})
}

func (f *fake) DeleteQueue(ctx context.Context, q *Queue, o driver.DeleteOptions) error {
	return f.step(ctx, "delete", func() error {
		fq := f.queues[q.Incarnation]
		if fq != nil && o.IfEmpty && len(fq.messages) > 0 {
			return driver.ErrInUse
		}
		if fq != nil && fq.in != nil {
			fq.in.Fail(driver.ErrNotFound)
		}
		delete(f.queues, q.Incarnation)
		return nil
	})
}

func (f *fake) QueueExists(ctx context.Context, q *Queue) (there bool, err error) {
	err = f.step(ctx, "exists", func() error {
		there = f.queues[q.Incarnation] != nil
		return nil
	})
	return there, err
}

func (f *fake) Append(_ context.Context, parcels []*Parcel, _ bool) {
	for _, p := range parcels {
		f.appends.Add(1)
		p.Done(f.append(p))
	}
}

func (f *fake) append(p *Parcel) error {
	if p.Queue.Handle != p.Queue.Incarnation {
		return fmt.Errorf("queue %q was not attached", p.Queue.Name)
	}
	if f.refuse != nil {
		if err := f.refuse(p); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	q := f.queues[p.Queue.Incarnation]
	if q == nil {
		return ErrGone
	}
	if q.seen[p.DedupID] {
		return nil
	}
	q.seen[p.DedupID] = true
	q.seq++
	d := &Delivery{Seq: q.seq}
	d.Message, d.Exchange, d.Attempt = *p.Publishing.Message, p.Exchange, 1
	d.Message.ID, d.Message.Header = p.Publishing.ID, maps.Clone(p.Publishing.Message.Header)
	q.messages = append(q.messages, d)
	q.give()
	return nil
}

// give puts into the inbox what there is room for.
func (q *fakeQueue) give() {
	for q.in != nil && len(q.messages) > 0 && q.in.Room() > 0 {
		d := q.messages[0]
		q.messages = q.messages[1:]
		q.held[d] = true
		q.in.Put(d)
	}
}

func (f *fake) Consume(_ context.Context, q *Queue, in *Inbox) (Consumer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fq := f.queues[q.Incarnation]
	if fq == nil {
		return nil, ErrGone
	}
	fq.in = in
	fq.give()
	return &fakeConsumer{f: f, q: fq}, nil
}

func (f *fake) Inspect(ctx context.Context, q *Queue) (info driver.QueueInfo, err error) {
	err = f.step(ctx, "inspect", func() error {
		fq := f.queues[q.Incarnation]
		if fq == nil {
			return ErrGone
		}
		info = driver.QueueInfo{Ready: len(fq.messages), Unsettled: len(fq.held)}
		return nil
	})
	return info, err
}

func (f *fake) Purge(ctx context.Context, q *Queue) (n int, err error) {
	err = f.step(ctx, "purge", func() error {
		fq := f.queues[q.Incarnation]
		if fq == nil {
			return ErrGone
		}
		n, fq.messages = len(fq.messages), nil
		return nil
	})
	return n, err
}

func (f *fake) Health(context.Context) error { return nil }

func (f *fake) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, f)
	return nil
}

type fakeConsumer struct {
	f *fake
	q *fakeQueue
}

func (c *fakeConsumer) Settle(_ context.Context, d *Delivery, o driver.Outcome, _ time.Duration) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	if !c.q.held[d] {
		return driver.ErrLost
	}
	delete(c.q.held, d)
	if o == driver.Nack {
		c.q.back(d, 1)
	}
	c.q.give()
	return nil
}

// back puts a new delivery of the same message first.
func (q *fakeQueue) back(d *Delivery, attempts int) {
	again := &Delivery{Seq: d.Seq}
	again.Message, again.Exchange, again.Attempt = d.Message, d.Exchange, d.Attempt+attempts
	q.messages = append([]*Delivery{again}, q.messages...)
}

func (c *fakeConsumer) Extend(_ context.Context, ds []*Delivery) (lost []*Delivery, err error) {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.q.extended++
	if c.q.lose {
		c.q.lose = false
		return ds, nil
	}
	return nil, nil
}

func (c *fakeConsumer) Close(context.Context) error {
	c.f.mu.Lock()
	defer c.f.mu.Unlock()
	c.q.in.Fail(driver.ErrClosed)
	prefetched, handed := c.q.in.Drain()
	for i, ds := range [][]*Delivery{prefetched, handed} {
		for _, d := range ds {
			delete(c.q.held, d)
			c.q.back(d, i)
		}
	}
	c.q.in = nil
	return nil
}

// owner waits for outcomes.
type owner chan error

func (o owner) Resolved(p *driver.Publishing) { o <- p.Err() }

// publish sends one message and waits for its outcome.
func publish(ctx context.Context, p driver.Publisher, m driver.Message) error {
	o := make(owner, 1)
	pb := &driver.Publishing{Owner: o}
	if m.ID == "" {
		m.ID = fmt.Sprintf("id-%d", rand.Uint64())
	}
	pb.Reset(&m, m.ID)
	p.Publish(ctx, []*driver.Publishing{pb}, true)
	select {
	case err := <-o:
		return err
	case <-ctx.Done():
		pb.Resolve(driver.ErrUnconfirmed)
		return <-o
	}
}
