package amqp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// Check implements driver.Checker.
func (c *Conn) Check(t routing.Topology) error {
	_, err := c.formsOf(t)
	return err
}

// forms are a topology's exchanges and queues as the broker is asked for them.
type forms struct {
	exchanges []amqp091.Table
	queues    []queueForm
}

// formsOf refuses what RabbitMQ does not have.
func (c *Conn) formsOf(t routing.Topology) (forms, error) {
	f := forms{make([]amqp091.Table, len(t.Exchanges)), make([]queueForm, len(t.Queues))}
	var errs []error
	for i, e := range t.Exchanges {
		var err error
		if f.exchanges[i], err = exchangeArgs(e); err != nil {
			errs = append(errs, fmt.Errorf("exchange %q: %w", e.Name, err))
		}
	}
	for i, q := range t.Queues {
		var err error
		if f.queues[i], err = formOf(q, c.version); err != nil {
			errs = append(errs, fmt.Errorf("queue %q: %w", q.Name, err))
		}
	}
	return f, errors.Join(errs...)
}

// Declare implements driver.Conn. What is refused is refused before anything
// is made.
func (c *Conn) Declare(ctx context.Context, t routing.Topology) error {
	forms, err := c.formsOf(t)
	if err != nil {
		return err
	}
	began := time.Now()
	exchanges, queues := forms.exchanges, forms.queues
	names := make([]string, len(t.Queues))
	for i, q := range t.Queues {
		names[i] = q.Name
	}
	for i, e := range t.Exchanges {
		if e.Kind.Custom() {
			if err := c.declareCustom(ctx, e, exchanges[i]); err != nil {
				return fmt.Errorf("exchange %q: %w", e.Name, err)
			}
		}
	}
	err = c.doWith(ctx, names, func(ch *channel) error {
		for i, e := range t.Exchanges {
			if e.Kind.Custom() {
				continue
			}
			if err := ch.ExchangeDeclare(e.Name, string(e.Kind), !e.Transient, false, false, false, exchanges[i]); err != nil {
				return fmt.Errorf("exchange %q: %w", e.Name, lacking(makeExchange, err))
			}
		}
		for i, q := range t.Queues {
			if err := c.exclusives.dropEnded(ch, q.Name); err != nil {
				return err
			}
			if err := c.declareQueue(ctx, ch, q.Name, queues[i]); err != nil {
				return fmt.Errorf("queue %q: %w", q.Name, locked(ch, q, transientRefused(q, lacking(makeQueue, err))))
			}
			if queues[i].drops() {
				c.cfg.Logger.Warn("polymq: when RabbitMQ restarts, this classic queue drops what subscribers hold beyond its limit: make it a quorum queue, or Overflow drop-head", "scheme", "amqp", "queue", q.Name)
			}
			if q.Exclusive {
				c.exclusives.add(ch.conn, q.Name, queues[i])
			}
			c.refusals.declared(q.Name, q.Rejects())
		}
		return c.bindAll(ch, t.Bindings)
	})
	if err == nil {
		c.declared.Add(t)
		c.restoring.declared(t.Queues, began)
	}
	return err
}

// locked tells a queue that is exclusive to another connection from one that
// stands, but differs in being exclusive: the broker has one answer for both.
func locked(ch *channel, q routing.Queue, err error) error {
	var e *amqp091.Error
	if !errors.As(err, &e) || e.Code != amqp091.ResourceLocked || ch.reopen() != nil {
		return err
	}
	if _, again := ch.QueueDeclarePassive(q.Name, true, false, false, false, nil); again != nil {
		return err
	}
	return fmt.Errorf("%w: Exclusive is %v: %v", driver.ErrConflict, !q.Exclusive, err)
}

// transientRefused explains what RabbitMQ 4.3 and newer refuse by default.
func transientRefused(q routing.Queue, err error) error {
	if q.Transient && strings.Contains(err.Error(), "transient_nonexcl_queues") {
		return fmt.Errorf("%w: this RabbitMQ has no transient queues: declare it durable, or permit the deprecated feature transient_nonexcl_queues on the broker: %w", errors.ErrUnsupported, err)
	}
	return err
}

func bindingText(b routing.Binding) string {
	if b.ToExchange != "" {
		return fmt.Sprintf("%q -> exchange %q, key %q", b.Exchange, b.ToExchange, b.Key)
	}
	return fmt.Sprintf("%q -> queue %q, key %q", b.Exchange, b.Queue, b.Key)
}

func bind(ch *channel, b routing.Binding) error {
	if b.ToExchange != "" {
		return ch.ExchangeBind(b.ToExchange, b.Key, b.Exchange, false, bindingArgs(b))
	}
	return ch.QueueBind(b.Queue, b.Key, b.Exchange, false, bindingArgs(b))
}

func unbind(ch *channel, b routing.Binding) error {
	if b.ToExchange != "" {
		return ch.ExchangeUnbind(b.ToExchange, b.Key, b.Exchange, false, bindingArgs(b))
	}
	return ch.QueueUnbind(b.Queue, b.Key, b.Exchange, bindingArgs(b))
}

func (c *Conn) bindAll(ch *channel, bs []routing.Binding) error {
	for _, b := range bs {
		if err := bind(ch, b); err != nil {
			return fmt.Errorf("binding %s: %w", bindingText(b), lacking(bindRights(b), err))
		}
		c.exclusives.bound(b)
	}
	return nil
}

// boundQueues are the queues that bindings lead to.
func boundQueues(bs []routing.Binding) (names []string) {
	for _, b := range bs {
		if b.Queue != "" {
			names = append(names, b.Queue)
		}
	}
	return names
}

// Bind implements driver.Conn.
func (c *Conn) Bind(ctx context.Context, bs []routing.Binding) error {
	err := c.doWith(ctx, boundQueues(bs), func(ch *channel) error { return c.bindAll(ch, bs) })
	if err == nil {
		c.declared.Add(routing.Topology{Bindings: bs})
	}
	return err
}

// Unbind implements driver.Conn.
func (c *Conn) Unbind(ctx context.Context, bs []routing.Binding) error {
	c.declared.Unbind(bs)
	return c.doWith(ctx, boundQueues(bs), func(ch *channel) error {
		for _, b := range bs {
			c.exclusives.unbound(func(o routing.Binding) bool { return sameBinding(o, b) })
			err := unbind(ch, b)
			if missing(err) {
				err = ch.reopen()
			}
			if err != nil {
				return fmt.Errorf("binding %s: %w", bindingText(b), lacking(bindRights(b), err))
			}
		}
		return nil
	})
}

// missing reports a 404, which some versions answer where others say nothing.
func missing(err error) bool {
	var e *amqp091.Error
	return errors.As(err, &e) && e.Code == amqp091.NotFound && !nodeDown(e)
}

// DeleteQueue implements driver.Conn. Quorum queues take no conditions, and
// answer them by closing the connection: they are looked at first, so that
// what comes between the look and the deletion is not seen.
func (c *Conn) DeleteQueue(ctx context.Context, name string, o driver.DeleteOptions) error {
	if o.IfUnused || o.IfEmpty {
		kind, err := c.kindOf(ctx, name)
		if errors.Is(err, driver.ErrNotFound) {
			return nil
		}
		if err != nil && !errors.Is(err, errUntold) {
			return err
		}
		if kind.kind != typeClassic {
			if err := c.checkUnused(ctx, name, o); err != nil {
				return err
			}
			o = driver.DeleteOptions{}
		}
	}
	release, err := c.exclusives.hold(ctx, name)
	if err != nil {
		return err
	}
	consumed := false
	err = c.do(ctx, func(ch *channel) error {
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		if err == nil {
			consumed = consumed || q.Consumers > 0
			_, err = ch.QueueDelete(name, o.IfUnused, o.IfEmpty, false)
		}
		if missing(err) {
			return nil
		}
		return lacking(configure, err)
	})
	release(err == nil)
	if !errors.Is(err, driver.ErrInUse) { // else it may be gone, whatever the error
		c.declared.DeleteQueue(name)
		c.restoring.deleted(name)
	}
	c.refusals.declared(name, false)
	if err == nil {
		err = c.forgetDelay(ctx, name)
	}
	if err == nil && consumed {
		select {
		case <-time.After(consumersHear):
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	return err
}

// consumersHear is time for the broker to tell a deleted queue's consumers. It
// does so a few milliseconds after its answer, and where a queue of that name
// stands again by then, it tells them nothing: they stay, and swallow what the
// new queue gives them.
const consumersHear = 200 * time.Millisecond

func (c *Conn) checkUnused(ctx context.Context, name string, o driver.DeleteOptions) error {
	return c.do(ctx, func(ch *channel) error {
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		switch {
		case missing(err):
			return nil
		case err != nil:
			return err
		case o.IfEmpty && q.Messages > 0:
			return fmt.Errorf("%w: the queue holds %d ready messages", driver.ErrInUse, q.Messages)
		case o.IfUnused && q.Consumers > 0:
			return fmt.Errorf("%w: the queue has %d subscribers", driver.ErrInUse, q.Consumers)
		}
		return nil
	})
}

// DeleteExchange implements driver.Conn.
func (c *Conn) DeleteExchange(ctx context.Context, name string, o driver.DeleteOptions) error {
	return c.do(ctx, func(ch *channel) error {
		err := ch.ExchangeDelete(name, o.IfUnused, false)
		if missing(err) {
			err = nil
		}
		if err == nil {
			c.declared.DeleteExchange(name)
			c.exclusives.unbound(func(b routing.Binding) bool { return b.Exchange == name })
		}
		return lacking(configure, err)
	})
}

// Purge implements driver.Conn.
func (c *Conn) Purge(ctx context.Context, queue string) (int, error) {
	var n int
	err := c.doWith(ctx, []string{queue}, func(ch *channel) error {
		k, err := ch.QueuePurge(queue, false)
		n += k
		return lacking(reading, err)
	})
	if err != nil {
		return 0, err // f may still be writing n
	}
	return n, nil
}

// Verify implements driver.Conn. Without the management option it sees only
// that exchanges and queues exist; with it, their fields and bindings too.
func (c *Conn) Verify(ctx context.Context, t routing.Topology) error {
	if c.management != nil {
		return c.verifyFields(ctx, t)
	}
	if len(t.Bindings) > 0 {
		return needManagement("Verify of bindings")
	}
	return c.do(ctx, func(ch *channel) error {
		var errs []error
		note := func(err error, what, name string) error {
			if err == nil {
				return nil
			}
			if lost(err) {
				return err
			}
			errs = append(errs, fmt.Errorf("%s %q: %w", what, name, wrap(err)))
			return ch.reopen()
		}
		for _, e := range t.Exchanges {
			if err := note(ch.ExchangeDeclarePassive(e.Name, string(e.Kind), !e.Transient, false, false, false, nil), "exchange", e.Name); err != nil {
				return err
			}
		}
		for _, q := range t.Queues {
			_, err := ch.QueueDeclarePassive(q.Name, !q.Transient, false, false, false, nil)
			if errors.Is(wrap(err), driver.ErrInUse) {
				err = ch.reopen() // it stands, exclusive to another connection
			}
			if err = note(err, "queue", q.Name); err != nil {
				return err
			}
		}
		return errors.Join(errs...)
	})
}
