package amqp

import (
	"context"
	"errors"
	"fmt"
	"time"
)

type delays struct{}

func (s *subscriber) settleLater(ctx context.Context, in *delivery, delay time.Duration) error {
	return fmt.Errorf("%w: nack with a delay", errors.ErrUnsupported)
}

// restore makes a delivery what it was when the application published it.
func (d *delivery) restore() {
	h := d.Message.Header
	delete(h, headerReturn)
	if death, ok := h[headerDeath]; ok {
		delete(h, headerDeath)
		h[headerXDeath] = death
	}
}
