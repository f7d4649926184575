package emulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// publisher routes messages in this process and appends them to their queues.
type publisher struct {
	c        *conn
	exchange string
	drop     bool
	closed   atomic.Bool
	parked   atomic.Int32 // publishings that the retrier has yet to route
}

// Publisher starts the lease with the first one; the others are mere handles.
func (c *conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	if err := c.lease.start(ctx); err != nil {
		return nil, err
	}
	return c.publisher(cfg.Exchange, cfg.DropUnroutable), nil
}

func (c *conn) publisher(exchange string, drop bool) *publisher {
	if exchange == routing.DefaultExchange {
		exchange = ""
	}
	return &publisher{c: c, exchange: exchange, drop: drop}
}

// Publish routes by the topology as it stands when it begins. Without a valid
// lease the batch is parked for the retrier, and what follows it too, so that
// it stays in order.
func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	if p.closed.Load() || p.c.closed.Load() {
		for _, pb := range batch {
			pb.Resolve(driver.ErrClosed)
		}
		return
	}
	ss := make([]sending, len(batch))
	for i, pb := range batch {
		ss[i].pub, ss[i].publishing = p, pb
	}
	p.dispatch(ctx, ss, wait)
}

func (p *publisher) dispatch(ctx context.Context, ss []sending, wait bool) {
	if p.parked.Load() == 0 {
		if st := p.c.lease.routing(); st != nil {
			p.c.send(ctx, st, ss, wait)
			return
		}
	}
	p.c.retrier.park(ss)
}

// Close resolves what waits to be tried again; what the store has is resolved
// when the store knows.
func (p *publisher) Close(context.Context) error {
	p.closed.Store(true)
	p.c.retrier.drop(p)
	return nil
}

// sending is one publishing on its way to its queues.
type sending struct {
	pub        *publisher
	publishing *driver.Publishing
	dedupID    string   // where it is not the publishing's
	avoid      []string // queues it must not go to (a dead letter in a circle)
	over       atomic.Bool

	one Parcel // the parcel, where there is one
	fan *fan   // where there are several
}

// fan counts the parcels of a sending to several queues.
type fan struct {
	mu      sync.Mutex
	parcels []*Parcel
	left    int
	stored  bool
	err     error
}

// scratch is what sending a batch needs for a moment.
type scratch struct {
	parcels []*Parcel
	names   []string
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// send routes by st and appends. What cannot be routed is resolved at once,
// what was given up meanwhile is left out.
func (c *conn) send(ctx context.Context, st *state, ss []sending, wait bool) {
	x := scratches.Get().(*scratch)
	for i := range ss {
		if s := &ss[i]; !s.abandoned() {
			s.route(st, x)
		}
	}
	if len(x.parcels) > 0 {
		c.store.Append(ctx, x.parcels, wait)
	}
	clear(x.parcels)
	clear(x.names)
	x.parcels, x.names = x.parcels[:0], x.names[:0]
	scratches.Put(x)
}

// targets are the queues of a message.
func (s *sending) targets(st *state, dst []string) ([]string, error) {
	if st.err != nil {
		return nil, st.err
	}
	m := s.publishing.Message
	dst, err := st.table.Route(dst, s.pub.exchange, m.Key, m.Header)
	if errors.Is(err, routing.ErrNoExchange) {
		return nil, fmt.Errorf("exchange %q: %w", s.pub.exchange, driver.ErrNotFound)
	}
	if err == nil && s.avoid != nil && len(dst) > 0 {
		dst = slices.DeleteFunc(dst, func(name string) bool { return slices.Contains(s.avoid, name) })
		if len(dst) == 0 {
			return nil, errCircle
		}
	}
	return dst, err
}

// route adds the sending's parcels.
func (s *sending) route(st *state, x *scratch) {
	names, err := s.targets(st, x.names[:0])
	switch {
	case err != nil:
		s.resolve(err)
		return
	case len(names) == 0:
		s.nowhere()
		return
	}
	x.names = names
	carried := s.carried()
	if len(names) == 1 {
		s.fill(&s.one, st.queues[names[0]], carried)
		x.parcels = append(x.parcels, &s.one)
		return
	}
	f := &fan{left: len(names), parcels: make([]*Parcel, len(names))}
	s.fan = f
	parcels := make([]Parcel, len(names))
	for i, name := range names {
		s.fill(&parcels[i], st.queues[name], carried)
		f.parcels[i] = &parcels[i]
	}
	x.parcels = append(x.parcels, f.parcels...)
}

func (s *sending) fill(p *Parcel, q *Queue, carried *driver.Publishing) {
	p.Queue, p.Publishing, p.Exchange, p.done = q, carried, s.pub.exchange, s
	p.DedupID = cmp.Or(s.dedupID, carried.Dedup, carried.ID)
}

func (s *sending) nowhere() {
	if s.pub.drop {
		s.resolve(nil)
	} else {
		s.resolve(driver.ErrUnroutable)
	}
}

// resolve has the last word, once: giving up can meet an outcome. Afterwards
// the publishing may carry another message already.
func (s *sending) resolve(err error) {
	if s.over.CompareAndSwap(false, true) {
		s.publishing.Resolve(err)
	}
}

// carried is the publishing without the BCC header, which routes but is not
// delivered. The message is the publisher's, so it is copied.
func (s *sending) carried() *driver.Publishing {
	m := s.publishing.Message
	if _, ok := m.Header["BCC"]; !ok {
		return s.publishing
	}
	stripped := *m
	stripped.Header = headerWithout(m.Header, "BCC")
	return &driver.Publishing{Message: &stripped, ID: s.publishing.ID, Dedup: s.publishing.Dedup, Owner: nobody{}}
}

// nobody owns publishings that are never resolved.
type nobody struct{}

func (nobody) Resolved(*driver.Publishing) {}

func headerWithout(header map[string]any, name string) map[string]any {
	if len(header) <= 1 {
		return nil
	}
	h := make(map[string]any, len(header)-1)
	for k, v := range header {
		if k != name {
			h[k] = v
		}
	}
	return h
}

func (s *sending) abandoned() bool { return s.over.Load() || s.publishing.Resolved() }

// parcelDone has the retrier try again where the outcome is open.
func (s *sending) parcelDone(p *Parcel, err error) {
	if err != nil && (errors.Is(err, ErrGone) || errors.Is(err, driver.ErrUnconfirmed)) && !s.abandoned() {
		if s.pub.c.retrier.again(p, s, err) {
			return
		}
		err = fmt.Errorf("%w: closed", driver.ErrUnconfirmed)
	}
	s.finish(err)
}

// finish takes a parcel's last word.
func (s *sending) finish(err error) {
	f := s.fan
	if f == nil {
		s.resolve(err)
		return
	}
	f.mu.Lock()
	f.left--
	switch {
	case err == nil:
		f.stored = true
	case f.err == nil || errors.Is(f.err, driver.ErrUnconfirmed):
		f.err = err
	}
	last, err := f.left == 0, f.err
	f.mu.Unlock()
	if last {
		s.resolve(err)
	}
}
