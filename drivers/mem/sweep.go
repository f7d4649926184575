package mem

import (
	"context"
	"errors"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

func (s *store) Now() time.Time { return time.Now() }

func (s *store) Sweep(ctx context.Context, q *emulate.Queue, max int) (emulate.Swept, error) {
	return emulate.Swept{}, errors.ErrUnsupported
}

func (s *store) Drop(ctx context.Context, q *emulate.Queue, ds []*emulate.Delivery) error {
	return errors.ErrUnsupported
}

func (s *store) Usage(ctx context.Context, q *emulate.Queue) (emulate.Usage, error) {
	return emulate.Usage{}, errors.ErrUnsupported
}

func (s *store) Touch(ctx context.Context, q *emulate.Queue) error { return nil }

func (s *store) Lead(ctx context.Context, client string, term time.Duration) (bool, error) {
	return false, nil
}
