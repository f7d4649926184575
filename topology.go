package polymq

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// QueueInfo is what Inspect sees.
type QueueInfo = driver.QueueInfo

// DeleteOptions are conditions on a deletion; where one does not hold the
// answer is ErrInUse. nil means none.
type DeleteOptions = driver.DeleteOptions

// Declare makes the exchanges, queues and bindings of t that are missing. What
// stands as declared is left alone. What stands differently is ErrConflict,
// naming the field; what is illegal is ErrInvalid, all of it at once, before
// anything is made; what the backend does not have is errors.ErrUnsupported.
// When Declare returns nil, every publish that starts afterwards, from any
// process, is routed by it. When it returns an error, a part of t may stand:
// declaring it again is safe.
//
// The connection remembers what it has declared and bound, until it deletes or
// unbinds it: when it was lost and is back, it makes anew what the broker has lost
// (promise 21). A transient queue ends with the broker, and all bindings to it: those
// of other connections come back only where the queue is there again when they try.
// Let the connection that declares such a queue bind it too.
func (c *Conn) Declare(ctx context.Context, t routing.Topology) error {
	err := c.usable(ctx)
	if err == nil {
		err = t.Validate()
	}
	if err == nil {
		err = c.has(t.Queues)
	}
	if err == nil {
		err = c.dc.Declare(ctx, t)
	}
	if err == nil {
		c.own(t.Queues)
	}
	return c.wrap("declare", "", err)
}

// restores is whether a queue that is gone is expected back, since the driver
// makes anew what was lost with the broker.
func (c *Conn) restores(queue string) bool {
	r, ok := c.dc.(driver.Restored)
	return ok && r.Restores(queue)
}

// has reports what queues ask for and the backend refuses.
func (c *Conn) has(queues []routing.Queue) error {
	var errs []error
	for _, q := range queues {
		for _, ask := range [...]struct {
			field   string
			asked   bool
			feature Feature
		}{
			{"MaxAttempts", q.MaxAttempts > 0, FeatureMaxAttempts},
			{"DeadLetterExchange", q.DeadLetterExchange != "", FeatureDeadLetter},
			{"TTL", q.TTL > 0, FeatureTTL},
			{"Expires", q.Expires > 0, FeatureQueueExpiry},
			{"MaxLength", q.MaxLength > 0, FeatureMaxLength},
			{"MaxBytes", q.MaxBytes > 0, FeatureMaxLength},
			{"MaxPriority", q.MaxPriority > 0, FeaturePriority},
			{"SingleActiveConsumer", q.SingleActiveConsumer, FeatureSingleActiveConsumer},
			{"Exclusive", q.Exclusive, FeatureExclusive},
			{"AutoDelete", q.AutoDelete, FeatureAutoDelete},
		} {
			if ask.asked && !c.features.Has(ask.feature) {
				errs = append(errs, fmt.Errorf("queue %q: %s: %w: this backend does not have the feature %q", q.Name, ask.field, errors.ErrUnsupported, ask.feature))
			}
		}
	}
	return errors.Join(errs...)
}

// Verify is nil when all of t stands, else it reports what is missing
// (ErrNotFound) or stands differently (ErrConflict). It changes nothing.
func (c *Conn) Verify(ctx context.Context, t routing.Topology) error {
	err := c.usable(ctx)
	if err == nil {
		err = t.Validate()
	}
	if err == nil {
		err = c.dc.Verify(ctx, t)
	}
	return c.wrap("verify", "", err)
}

// Bind adds bindings; one that stands is left alone. A missing exchange or
// queue is ErrNotFound. When Bind returns nil, every publish that starts
// afterwards, from any process, is routed by it.
func (c *Conn) Bind(ctx context.Context, bs ...routing.Binding) error {
	return c.bindings(ctx, "bind", bs, driver.Conn.Bind)
}

// Unbind removes bindings; what is not there is no error. When Unbind returns
// nil, no publish that starts afterwards, from any process, is routed by them.
func (c *Conn) Unbind(ctx context.Context, bs ...routing.Binding) error {
	return c.bindings(ctx, "unbind", bs, driver.Conn.Unbind)
}

func (c *Conn) bindings(ctx context.Context, op string, bs []routing.Binding, do func(driver.Conn, context.Context, []routing.Binding) error) error {
	err := c.usable(ctx)
	if err == nil {
		err = routing.Topology{Bindings: bs}.Validate()
	}
	if err == nil && len(bs) > 0 {
		err = do(c.dc, ctx, bs)
	}
	return c.wrap(op, "", err)
}

// DeleteQueue removes a queue, its messages and its bindings. A missing one is
// no error.
func (c *Conn) DeleteQueue(ctx context.Context, name string, opts *DeleteOptions) error {
	err := c.usable(ctx)
	if err == nil {
		err = routing.CheckName(name)
	}
	if err == nil {
		err = c.dc.DeleteQueue(ctx, name, orZero(opts))
	}
	if err == nil {
		c.disown(name)
	}
	return c.wrap("delete queue", name, err)
}

// DeleteExchange removes an exchange and its bindings. A missing one is no
// error; the exchanges that every broker has cannot be deleted (ErrInvalid).
func (c *Conn) DeleteExchange(ctx context.Context, name string, opts *DeleteOptions) error {
	err := c.usable(ctx)
	if err == nil {
		err = routing.CheckName(name)
	}
	if err == nil && strings.HasPrefix(name, "amq.") {
		err = invalid("the prefix amq. is reserved for the exchanges that every broker has")
	}
	if opts := orZero(opts); err == nil && opts.IfEmpty {
		err = invalid("IfEmpty is for queues")
	}
	if err == nil {
		err = c.dc.DeleteExchange(ctx, name, orZero(opts))
	}
	return c.wrap("delete exchange", name, err)
}

// Topology is what stands now in the connection's namespace, whoever declared
// it, sorted by name; without the default exchange, its bindings and the amq.*
// exchanges.
func (c *Conn) Topology(ctx context.Context) (routing.Topology, error) {
	if err := c.usable(ctx); err != nil {
		return routing.Topology{}, c.wrap("topology", "", err)
	}
	t, err := c.dc.Topology(ctx)
	return t, c.wrap("topology", "", err)
}

// Inspect counts a queue's messages and subscribers as of now. A missing queue
// is ErrNotFound.
func (c *Conn) Inspect(ctx context.Context, queue string) (QueueInfo, error) {
	err := c.usable(ctx)
	if err == nil {
		err = routing.CheckName(queue)
	}
	if err != nil {
		return QueueInfo{}, c.wrap("inspect", queue, err)
	}
	info, err := c.dc.Inspect(ctx, queue)
	return info, c.wrap("inspect", queue, err)
}

// Purge removes the ready messages of a queue, not those that subscribers
// hold, and says how many there were. A missing queue is ErrNotFound.
func (c *Conn) Purge(ctx context.Context, queue string) (int, error) {
	err := c.usable(ctx)
	if err == nil {
		err = routing.CheckName(queue)
	}
	if err != nil {
		return 0, c.wrap("purge", queue, err)
	}
	n, err := c.dc.Purge(ctx, queue)
	return n, c.wrap("purge", queue, err)
}

func orZero[T any](p *T) T {
	if p == nil {
		var zero T
		return zero
	}
	return *p
}
