package polymq

import "context"

// Run works on deliveries with h until ctx ends.
func (s *Subscriber) Run(ctx context.Context, h Handler) error { panic("unbuilt") }
