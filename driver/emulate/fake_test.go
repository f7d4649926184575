package emulate

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
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
	leases    map[string]record
	restarted time.Time
	watchers  map[*fake]func(back bool)
	queues    map[string]*fakeQueue
	leader    string
	term      time.Time    // when the leader's term ends
	ahead     atomic.Int64 // the broker's clock, of this process's
}

// record is a client's lease.
type record struct {
	version Version
	renewed time.Time
}

func newWorld() *world {
	return &world{
		version:  Version{"e1", 1},
		elements: map[string][]byte{},
		leases:   map[string]record{},
		watchers: map[*fake]func(bool){},
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

// lose is a restart that takes the transient queues with it.
func (w *world) lose() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name, q := range w.queues {
		if q.q.Transient {
			q.end(ErrGone)
			delete(w.queues, name)
		}
	}
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

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

	// point is called before and after a message is stored or settled.
	point func(what string)
	// attentive makes its consumers heed Inbox.More.
	attentive bool

	crashed atomic.Bool
	appends atomic.Int64
}

func (w *world) client() *fake { return &fake{world: w} }

// crash is the end of the process: nothing that it does reaches the world any
// more. What it holds comes again after the lease.
func (f *fake) crash() {
	f.crashed.Store(true)
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, f)
	time.AfterFunc(f.holdTime(), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, q := range f.queues {
			for _, c := range slices.Clone(q.consumers) {
				if c.f == f {
					c.leave()
				}
			}
		}
	})
}

// back tells that a lost connection came back.
func (f *fake) back() {
	f.mu.Lock()
	changed := f.watchers[f]
	f.mu.Unlock()
	changed(true)
}

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
	var watchers []func(bool)
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
			changed(false)
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
		f.leases[client] = record{v, time.Now()}
		return nil
	})
}

func (f *fake) Leases(ctx context.Context) (leases []Lease, restarted time.Duration, err error) {
	restarted = -1
	err = f.step(ctx, "leases", func() error {
		if !f.restarted.IsZero() {
			restarted = time.Since(f.restarted)
		}
		for client, r := range f.leases {
			if time.Since(r.renewed) > 10*LeaseTime {
				delete(f.leases, client)
				continue
			}
			leases = append(leases, Lease{client, r.version})
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

func (f *fake) Lead(ctx context.Context, client string, term time.Duration) (leads bool, err error) {
	err = f.step(ctx, "lead", func() error {
		if leads = f.leader == client || !time.Now().Before(f.term); leads {
			f.leader, f.term = client, time.Now().Add(term)
		}
		return nil
	})
	return leads, err
}

func (f *fake) Now() time.Time { return f.now() }

func (f *fake) Health(context.Context) error { return nil }

func (f *fake) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.watchers, f)
	for _, q := range f.queues {
		for _, c := range slices.Clone(q.consumers) {
			if c.f == f {
				c.in.Fail(driver.ErrClosed)
				c.end()
			}
		}
	}
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
