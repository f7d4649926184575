package oracle

import (
	"context"
	"errors"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

// connections is how many a client has; an operation names one by its number.
const connections = 2

// A client is a way to a broker. It is used by one goroutine at a time. Its
// errors wrap the sentinels of package polymq.
type client interface {
	declare(ctx context.Context, on int, t routing.Topology) error
	bind(ctx context.Context, on int, b routing.Binding) error
	unbind(ctx context.Context, on int, b routing.Binding) error
	deleteQueue(ctx context.Context, on int, queue string, o polymq.DeleteOptions) error
	deleteExchange(ctx context.Context, on int, exchange string, o polymq.DeleteOptions) error
	purge(ctx context.Context, on int, queue string) (int, error)
	inspect(ctx context.Context, on int, queue string) (polymq.QueueInfo, error)
	// count is what the player looks at after each step: the cheapest way to
	// learn what is ready, and how many consumers there are.
	count(ctx context.Context, on int, q routing.Queue) (ready, consumers int, err error)
	// publish returns one error a message.
	publish(ctx context.Context, on int, exchange string, drop bool, ms []polymq.Message) []error
	subscribe(ctx context.Context, on int, queue string, prefetch int) (subscription, error)
	// disconnect closes a connection and opens it again.
	disconnect(ctx context.Context, on int) error
	close(ctx context.Context) error
}

// A subscription takes messages from one queue.
type subscription interface {
	receive(ctx context.Context) (*received, error)
	settle(ctx context.Context, r *received, outcome string, delay time.Duration) error
	// pending is how many messages the broker sent that were not received yet;
	// -1 where that cannot be known.
	pending() int
	close(ctx context.Context) error
}

// received is a delivery and the client's handle on it.
type received struct {
	Delivered
	tag any
}

// Delivered is what a queue delivered.
type Delivered struct {
	Message         polymq.Message
	Exchange, Queue string
	Attempt         int
	Redelivered     bool
}

// classes are the errors that are compared; what an error says beyond that is
// each broker's own.
var classes = []struct {
	err  error
	name string
}{
	{polymq.ErrConflict, "conflict"},
	{polymq.ErrUnroutable, "unroutable"},
	{polymq.ErrRejected, "rejected"},
	{polymq.ErrNotFound, "not found"},
	{polymq.ErrInUse, "in use"},
	{polymq.ErrPermission, "permission denied"},
	{polymq.ErrLost, "lost"},
	{polymq.ErrClosed, "closed"},
	{polymq.ErrTooLarge, "too large"},
	{polymq.ErrUnconfirmed, "unconfirmed"},
	{polymq.ErrInvalid, "invalid"},
	{errors.ErrUnsupported, "unsupported"},
}

// class names what an error is; "" for none.
func class(err error) string {
	if err == nil {
		return ""
	}
	for _, c := range classes {
		if errors.Is(err, c.err) {
			return c.name
		}
	}
	return err.Error()
}
