package polymq

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/polymq/polymq/routing"
)

// temporaryPrefix begins the names of temporary queues.
const temporaryPrefix = "polymq.gen-"

// SubscribeTemporary makes a queue of its own with a fresh name, which
// Subscriber.Queue tells, binds it as bindings say, whose Queue is left empty,
// and begins to consume it: what everybody is to get is published to a fanout
// or topic exchange, and each process takes it with
//
//	s, err := conn.SubscribeTemporary(ctx, nil, routing.Binding{Exchange: "events"})
//
// The queue is Exclusive and ends with the subscriber. When the process dies
// nothing is left behind: the broker, or another process that uses the same
// namespace, deletes it, on NATS and Redis within some leases. When a lost
// connection comes back, so do the queue, empty, and its bindings.
// Settlements, prefetch and errors are those of Subscriber; a binding of an
// exchange that does not exist is ErrNotFound.
func (c *Conn) SubscribeTemporary(ctx context.Context, opts *SubscriberOptions, bindings ...routing.Binding) (*Subscriber, error) {
	name := temporaryPrefix + strings.ToLower(rand.Text())
	s, err := c.subscribeTemporary(ctx, name, orZero(opts), bindings)
	if err != nil {
		return nil, c.wrap("subscriber", name, err)
	}
	return s, nil
}

func (c *Conn) subscribeTemporary(ctx context.Context, name string, opts SubscriberOptions, bindings []routing.Binding) (*Subscriber, error) {
	bindings = slices.Clone(bindings)
	for i := range bindings {
		if b := &bindings[i]; b.Queue != "" || b.ToExchange != "" {
			return nil, invalid("%v: leave its destination empty: it is the temporary queue", *b)
		}
		bindings[i].Queue = name
	}
	err := c.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: name, Transient: true, Exclusive: true}}, Bindings: bindings})
	var s *Subscriber
	if err == nil {
		s, err = c.subscriber(ctx, name, opts, c.hooks)
	}
	if err != nil {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTimeout)
		defer cancel()
		_ = c.endTemporary(end, name) // it ends with the connection otherwise
		return nil, err
	}
	s.temporary.Store(true)
	return s, nil
}

func (c *Conn) endTemporary(ctx context.Context, name string) error {
	c.disown(name)
	return c.dc.DeleteQueue(ctx, name, DeleteOptions{})
}

// own notes the exclusive queues among those that were declared.
func (c *Conn) own(queues []routing.Queue) {
	for _, q := range queues {
		if q.Exclusive {
			c.mu.Lock()
			c.owned[q.Name] = struct{}{}
			c.mu.Unlock()
		}
	}
}

func (c *Conn) disown(name string) {
	c.mu.Lock()
	delete(c.owned, name)
	c.mu.Unlock()
}

// owns reports whether a queue is an exclusive one that was declared here.
func (c *Conn) owns(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.owned[name]
	return ok
}
