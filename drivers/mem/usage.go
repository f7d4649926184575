package mem

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

func (s *store) Usage(ctx context.Context, eq *emulate.Queue) (emulate.Usage, error) {
	if err := s.usable(ctx); err != nil {
		return emulate.Usage{}, err
	}
	q := s.queue(eq)
	if q == nil {
		return emulate.Usage{}, emulate.ErrGone
	}
	return q.usage()
}

func (s *store) Touch(ctx context.Context, eq *emulate.Queue) error {
	if err := s.usable(ctx); err != nil {
		return err
	}
	q := s.queue(eq)
	if q == nil {
		return emulate.ErrGone
	}
	return q.touch()
}

func (s *store) Lead(ctx context.Context, client string, term time.Duration) (bool, error) {
	if err := s.usable(ctx); err != nil {
		return false, err
	}
	return s.space.topology.lead(client, term), nil
}
