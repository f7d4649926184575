package faulty

import (
	"context"
	"sync"
	"time"

	"github.com/polymq/polymq/driver"
)

type subscriber struct {
	driver.Subscriber
	c     *conn
	queue string

	mu    sync.Mutex
	held  map[*driver.Delivery]bool // handed out and not settled
	count int
}

func (s *subscriber) Receive(ctx context.Context, buf []*driver.Delivery) (int, error) {
	if err := s.c.l.wait(ctx); err != nil {
		return 0, err
	}
	receive := s.Subscriber.Receive
	if s.c.f.receive != nil {
		receive = func(ctx context.Context, buf []*driver.Delivery) (int, error) { return s.c.f.receive(ctx, s, buf) }
	}
	n, err := receive(ctx, buf)
	s.mu.Lock()
	for _, d := range buf[:n] {
		s.held[d] = true
	}
	s.mu.Unlock()
	return n, err
}

func (s *subscriber) Settle(ctx context.Context, d *driver.Delivery, o driver.Outcome, delay time.Duration) error {
	s.mu.Lock()
	delete(s.held, d)
	s.mu.Unlock()
	if s.c.f.settle != nil {
		return s.c.f.settle(ctx, s, d, o, delay)
	}
	var err error
	s.c.l.send(func() { err = s.Subscriber.Settle(ctx, d, o, delay) })
	return err
}

func (s *subscriber) Extend(ctx context.Context, d *driver.Delivery) error {
	if err := s.c.l.wait(ctx); err != nil {
		return err
	}
	return s.Subscriber.Extend(ctx, d)
}

// Drain is a driver.Drainer's, which every driver has.
func (s *subscriber) Drain(ctx context.Context) error {
	if err := s.c.l.wait(ctx); err != nil {
		return err
	}
	if s.c.f.drain != nil {
		return s.c.f.drain(ctx, s)
	}
	return s.Subscriber.(driver.Drainer).Drain(ctx)
}

func (s *subscriber) Close(ctx context.Context) error {
	if err := s.c.l.wait(ctx); err != nil {
		_ = s.Subscriber.Close(context.Background())
		return err
	}
	if s.c.f.closeSub != nil {
		return s.c.f.closeSub(ctx, s)
	}
	return s.Subscriber.Close(ctx)
}

// nth counts deliveries.
func (s *subscriber) nth() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	return s.count
}

// unsettled is what the subscriber has handed out and nobody has settled.
func (s *subscriber) unsettled() []*driver.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ds []*driver.Delivery
	for d := range s.held {
		ds = append(ds, d)
	}
	return ds
}
