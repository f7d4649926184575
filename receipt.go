package polymq

import "context"

// Receipt is the outcome to be of a message of PublishAsync.
type Receipt struct{}

// Done is closed when the outcome is known.
func (r *Receipt) Done() <-chan struct{} { panic("unbuilt") }

// Err is the outcome.
func (r *Receipt) Err() error { panic("unbuilt") }

// Wait waits for the outcome.
func (r *Receipt) Wait(ctx context.Context) error { panic("unbuilt") }

// ID is the message's ID.
func (r *Receipt) ID() string { panic("unbuilt") }
