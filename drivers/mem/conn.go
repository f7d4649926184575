package mem

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

const (
	maxMessageBytes = 16 << 20
	dedupWindow     = 20 * time.Second
)

// store is one connection's side of a broker; it implements emulate.Store.
type store struct {
	broker *broker
	space  *space
	cfg    driver.Config
	closed atomic.Bool

	mu        sync.Mutex
	consumers map[*consumer]struct{}
}

func (s *store) Features() driver.Features {
	return driver.Features{
		Backend:         "memory",
		MaxMessageBytes: maxMessageBytes,
		DedupWindow:     dedupWindow,
		Requeue:         "first",
		Support: map[driver.Feature]driver.Support{
			driver.MaxLength: driver.Native, driver.Priority: driver.Native, driver.SingleActive: driver.Native,
		},
	}
}

// usable is the error of a call that must not begin.
func (s *store) usable(ctx context.Context) error {
	if s.closed.Load() {
		return driver.ErrClosed
	}
	return ctx.Err()
}

func (s *store) LoadTopology(ctx context.Context, since emulate.Version) (emulate.Changes, error) {
	if err := s.usable(ctx); err != nil {
		return emulate.Changes{}, err
	}
	return s.space.topology.load(since), nil
}

func (s *store) ApplyTopology(ctx context.Context, at emulate.Version, elements []emulate.Element) (emulate.Version, error) {
	if err := s.usable(ctx); err != nil {
		return emulate.Version{}, err
	}
	return s.space.topology.apply(at, elements)
}

func (s *store) WatchTopology(_ context.Context, changed func(back bool)) error {
	s.space.topology.watch(s, changed)
	return nil
}

func (s *store) RenewLease(ctx context.Context, client string, v emulate.Version) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	return s.space.topology.renew(client, v)
}

// Leases says that nothing is ever forgotten: a simulated restart keeps them.
func (s *store) Leases(ctx context.Context) ([]emulate.Lease, time.Duration, error) {
	if err := s.usable(ctx); err != nil {
		return nil, -1, err
	}
	return s.space.topology.all(), -1, nil
}

func (s *store) EndLease(_ context.Context, client string) error {
	s.space.topology.end(client)
	return nil
}

func (s *store) Health(ctx context.Context) error { return s.usable(ctx) }
func (s *store) Native() any                      { return nil }

func (s *store) Close(ctx context.Context) error {
	s.closed.Store(true)
	s.space.topology.unwatch(s)
	s.broker.mu.Lock()
	delete(s.broker.stores, s)
	s.broker.mu.Unlock()
	s.unsweep()
	for _, c := range s.open() {
		if err := c.Close(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *store) open() []*consumer {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*consumer
	for c := range s.consumers {
		out = append(out, c)
	}
	return out
}

// sever loses the connection and has it again.
func (s *store) sever(why error) {
	for _, c := range s.open() {
		c.q.giveBack(c)
	}
	s.unsweep()
	s.cfg.OnState(driver.Disconnected, why)
	s.cfg.OnState(driver.Connected, nil)
	s.space.topology.cameBack(s)
}
