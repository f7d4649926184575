package polymq

import "context"

// PublisherOptions are the options of a publisher. nil means the defaults.
type PublisherOptions struct {
	// Window is how many messages may be on their way, published and not yet
	// confirmed. A full window blocks. Default: 256.
	Window int
	// DropUnroutable makes a message that no queue takes a success instead of
	// ErrUnroutable. Default: false.
	DropUnroutable bool
	// Middleware wraps Publish and PublishAsync, the first being the
	// outermost. Default: none.
	Middleware []PublishMiddleware
}

// Publisher publishes to one exchange.
type Publisher struct{}

// Publisher makes a publisher to an exchange; "" is the default exchange.
func (c *Conn) Publisher(ctx context.Context, exchange string, opts *PublisherOptions) (*Publisher, error) {
	panic("unbuilt")
}

// Publish publishes messages and waits until they are confirmed.
func (p *Publisher) Publish(ctx context.Context, msgs ...*Message) error { panic("unbuilt") }

// PublishAsync publishes a message and does not wait.
func (p *Publisher) PublishAsync(ctx context.Context, m *Message) (*Receipt, error) { panic("unbuilt") }

// Flush waits until nothing is on its way.
func (p *Publisher) Flush(ctx context.Context) error { panic("unbuilt") }

// Close waits for what is on its way.
func (p *Publisher) Close(ctx context.Context) error { panic("unbuilt") }
