package emulate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// publisher routes messages in this process and appends them to their queues.
type publisher struct {
	c        *conn
	exchange string
	queue    string // where set, the only target, whatever the exchange routes
	drop     bool
	closed   atomic.Bool
	parked   atomic.Int32 // publishings that the retrier has yet to route

	// The retrier's: what must be made for the next publishing could not be.
	failed int
	after  time.Time // the next try
}

// Publisher starts the lease with the first one; the others are mere handles.
func (c *conn) Publisher(ctx context.Context, cfg driver.PublisherConfig) (driver.Publisher, error) {
	if err := reserved(cfg.Queue); err != nil {
		return nil, err
	}
	if err := c.lease.start(ctx); err != nil {
		return nil, err
	}
	p := c.publisher(cfg.Exchange, cfg.DropUnroutable)
	p.queue = cfg.Queue
	return p, nil
}

func (c *conn) publisher(exchange string, drop bool) *publisher {
	if exchange == routing.DefaultExchange {
		exchange = ""
	}
	return &publisher{c: c, exchange: exchange, drop: drop}
}

// Publish routes by the topology as it stands when it begins. Without a valid
// lease, or where something must be made first, the rest of the batch is parked
// for the retrier, and what follows it too, so that it stays in order.
func (p *publisher) Publish(ctx context.Context, batch []*driver.Publishing, wait bool) {
	if p.closed.Load() || p.c.closed.Load() {
		for _, pb := range batch {
			pb.Resolve(driver.ErrClosed)
		}
		return
	}
	g := newGroup(len(batch))
	for i, pb := range batch {
		s := &g.sendings[i]
		s.pub, s.publishing, s.group = p, pb, g
	}
	p.dispatch(ctx, g.sendings, wait)
	g.leave(1)
}

func (p *publisher) dispatch(ctx context.Context, ss []sending, wait bool) {
	if p.parked.Load() == 0 {
		if st := p.c.lease.routing(); st != nil {
			ss = p.c.send(ctx, st, ss, wait)
		}
	}
	if len(ss) > 0 {
		p.c.retrier.park(ss)
	}
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
	dedupID    string // where it is not the publishing's
	move       *move  // where it is a try of one
	delayed    bool   // it goes to the queue for delayed messages
	over       atomic.Bool
	group      *group // nil: it is not used again

	one   Parcel // the parcel, where there is one
	fan   *fan   // where there are several
	spare *fan   // of an earlier sending
}

// fan counts the parcels of a sending to several queues.
type fan struct {
	own     []Parcel
	mu      sync.Mutex
	parcels []*Parcel
	left    int
	stored  bool
	err     error
}

// fanTo is a fan of n parcels that are yet to be filled.
func (s *sending) fanTo(n int) *fan {
	f := s.spare
	if f == nil || cap(f.own) < n {
		f = &fan{own: make([]Parcel, n), parcels: make([]*Parcel, n)}
	}
	s.fan, s.spare = f, nil
	f.own, f.parcels, f.left = f.own[:n], f.parcels[:n], n
	for i := range f.own {
		f.parcels[i] = &f.own[i]
	}
	return f
}

// clear makes the fan ready to be used again.
func (f *fan) clear() {
	clear(f.own)
	clear(f.parcels)
	f.stored, f.err = false, nil
}

// scratch is what sending a batch needs for a moment.
type scratch struct {
	parcels []*Parcel
	names   []string
}

var scratches = sync.Pool{New: func() any { return new(scratch) }}

// send routes by st and appends. What cannot be routed is resolved at once,
// what was given up meanwhile is left out. It returns the rest from the first
// on for which something must be made.
func (c *conn) send(ctx context.Context, st *state, ss []sending, wait bool) (rest []sending) {
	x := scratches.Get().(*scratch)
	for i := range ss {
		s, before := &ss[i], len(x.parcels)
		if !s.abandoned() && !s.route(st, x) {
			rest = ss[i:]
			break
		}
		if len(x.parcels) == before {
			s.leave() // it has no way, or need not be sent
		}
	}
	if len(x.parcels) > 0 {
		c.store.Append(ctx, x.parcels, wait)
	}
	clear(x.parcels)
	clear(x.names)
	x.parcels, x.names = x.parcels[:0], x.names[:0]
	scratches.Put(x)
	return rest
}

// targets are the queues of a message.
func (s *sending) targets(st *state, dst []string) ([]string, error) {
	if st.err != nil {
		return nil, st.err
	}
	m := s.publishing.Message
	if s.pub.queue != "" {
		if s.pub.queue == delayedQueue {
			s.delayed = true
			return append(dst, delayedQueue), nil
		}
		if m.Delay > 0 {
			return nil, fmt.Errorf("%w: a message to one queue cannot be delayed: publish it to an exchange", errors.ErrUnsupported)
		}
		if st.queues[s.pub.queue] == nil {
			return nil, nil
		}
		return append(dst, s.pub.queue), nil
	}
	dst, err := st.table.Route(dst, s.pub.exchange, m.Key, m.Header, routing.Properties{ID: s.publishing.ID, CorrelationID: m.CorrelationID, Time: m.Time})
	if errors.Is(err, routing.ErrNoExchange) {
		return nil, fmt.Errorf("exchange %q: %w", s.pub.exchange, driver.ErrNotFound)
	}
	if err == nil && m.Delay > 0 {
		// It is routed when it is due: now only the exchange has to be there.
		s.delayed = true
		if s.dedupID == "" {
			s.dedupID = delayedID(s.publishing, s.pub.exchange, dst)
		}
		return append(dst[:0], delayedQueue), nil
	}
	if err == nil && s.move != nil {
		return s.move.without(dst)
	}
	return dst, err
}

// route adds the sending's parcels; false, and none, where something must be
// made first.
func (s *sending) route(st *state, x *scratch) bool {
	names, err := s.targets(st, x.names[:0])
	switch {
	case err != nil:
		s.resolve(err)
		return true
	case len(names) == 0:
		s.nowhere()
		return true
	case s.lacks(st, names) != "":
		return false
	}
	x.names = names
	if ttl := s.publishing.Message.TTL; ttl > 0 && !s.delayed {
		for _, name := range names {
			s.pub.c.janitor.hint(st.queues[name], ttl)
		}
	}
	carried := s.carried()
	if len(names) == 1 {
		s.fill(&s.one, st.queues[names[0]], carried)
		x.parcels = append(x.parcels, &s.one)
		return true
	}
	f := s.fanTo(len(names))
	for i, name := range names {
		s.fill(f.parcels[i], st.queues[name], carried)
	}
	x.parcels = append(x.parcels, f.parcels...)
	return true
}

// lacks names the first target that is not ready for the message: the queue for
// delayed messages is made when it is first needed, and of a queue to which
// messages with a time of their own come the topology must say so.
func (s *sending) lacks(st *state, names []string) string {
	if s.delayed {
		if st.queues[delayedQueue] == nil {
			return delayedQueue
		}
		return ""
	}
	if ttl := s.publishing.Message.TTL; ttl > 0 {
		for _, name := range names {
			if st.queues[name].lacksMark(ttl) {
				return name
			}
		}
	}
	return ""
}

// lacksMark: a message with a shorter time than the queue gives is the first.
func (q *Queue) lacksMark(ttl time.Duration) bool { return !q.expiring && (q.TTL == 0 || ttl < q.TTL) }

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
// delivered. The message is the publisher's, so it is copied. A delayed message
// has yet to be routed.
func (s *sending) carried() *driver.Publishing {
	m := s.publishing.Message
	if _, ok := m.Header["BCC"]; !ok || s.delayed {
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
	if err != nil && (errors.Is(err, ErrGone) || errors.Is(err, driver.ErrUnconfirmed) && !hopeless(err)) && !s.abandoned() {
		if s.pub.c.retrier.again(p, s, err) {
			return
		}
		err = fmt.Errorf("%w: closed", driver.ErrUnconfirmed)
	}
	if err == nil {
		if s.move != nil {
			s.move.took(p.Queue.Name)
		}
		if p.Queue.pushesOut() {
			s.pub.c.janitor.hint(p.Queue, 0)
		}
	}
	s.finish(err)
}

// finish takes a parcel's last word.
func (s *sending) finish(err error) {
	f := s.fan
	if f == nil {
		s.resolve(err)
		s.leave()
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
		s.leave()
	}
}
