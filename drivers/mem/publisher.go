package mem

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// handle leads from a queue's incarnation to its storage.
type handle struct{ q atomic.Pointer[queue] }

func (s *store) Attach(q *emulate.Queue) { q.Handle = new(handle) }

// queue is the storage of an incarnation; nil where there is none.
func (s *store) queue(q *emulate.Queue) *queue {
	h := q.Handle.(*handle)
	if found := h.q.Load(); found != nil {
		return found
	}
	found := s.space.find(q.Incarnation)
	if found != nil {
		h.q.Store(found)
	}
	return found
}

// Append stores the parcels, those for one queue in a row under one lock.
func (s *store) Append(_ context.Context, parcels []*emulate.Parcel, _ bool) {
	if s.closed.Load() {
		for _, p := range parcels {
			p.Done(fmt.Errorf("%w: %w", driver.ErrUnconfirmed, driver.ErrClosed))
		}
		return
	}
	for len(parcels) > 0 {
		n := 1
		for n < len(parcels) && parcels[n].Queue == parcels[0].Queue {
			n++
		}
		q := s.queue(parcels[0].Queue)
		if q == nil {
			for _, p := range parcels[:n] {
				p.Done(emulate.ErrGone)
			}
		} else {
			q.append(parcels[:n], s.cfg.Logger)
		}
		parcels = parcels[n:]
	}
}

func (s *store) CreateQueue(ctx context.Context, q *emulate.Queue) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	s.space.mu.Lock()
	defer s.space.mu.Unlock()
	if s.space.queues[q.Incarnation] == nil {
		s.space.queues[q.Incarnation] = newQueue(q)
	}
	return nil
}

func (s *store) DeleteQueue(ctx context.Context, q *emulate.Queue, o emulate.DeleteOptions) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	if found := s.queue(q); found != nil {
		return s.space.remove(found, o)
	}
	return nil
}

func (s *store) QueueExists(ctx context.Context, q *emulate.Queue) (bool, error) {
	if err := s.usable(ctx); err != nil {
		return false, err
	}
	return s.space.find(q.Incarnation) != nil, nil
}

func (s *store) Inspect(ctx context.Context, q *emulate.Queue) (driver.QueueInfo, error) {
	if err := s.usable(ctx); err != nil {
		return driver.QueueInfo{}, err
	}
	found := s.queue(q)
	if found == nil {
		return driver.QueueInfo{}, emulate.ErrGone
	}
	return found.inspect()
}

func (s *store) Purge(ctx context.Context, q *emulate.Queue) (int, error) {
	if err := s.usable(ctx); err != nil {
		return 0, err
	}
	found := s.queue(q)
	if found == nil {
		return 0, emulate.ErrGone
	}
	return found.purge()
}
