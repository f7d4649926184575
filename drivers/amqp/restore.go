package amqp

import (
	"context"
	"slices"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// restore makes anew, on a connection that has just come back, what this Conn has
// declared and the broker has lost: what is transient, or everything, where the
// broker lost its disk. Durable queues are not touched otherwise: one that RabbitMQ
// half forgot, since it was killed just after the declaration, must not be declared
// again beside what is left of it. Nobody sees the connection before, so that no
// publish and no consumer comes too early.
func (c *Conn) restore(conn *amqp091.Connection, w *wire) {
	if c.declared.Empty() {
		return
	}
	defer context.AfterFunc(c.ctx, w.cut)()
	if !c.restoring.lock(conn) {
		return
	}
	defer c.restoring.unlock()
	t := c.declared.Topology()
	ch := &channel{conn: conn}
	if ch.reopen() != nil {
		return
	}
	empty, err := wiped(ch, t, c.restoring.settled(t.Queues))
	if err != nil {
		return // this connection is lost again
	}
	if c.restoring.all = c.restoring.all || empty; !c.restoring.all {
		t = passing(t)
	}
	steps := c.steps(t)
	// Almost always all of it stands: one answer to all is enough to know, and a
	// queue that has no leader yet holds up nothing.
	done := !slices.ContainsFunc(steps, func(s step) bool { return s.do(ch, true) != nil })
	answered := func() bool {
		return ch.ExchangeDeclarePassive("amq.direct", "direct", true, false, false, false, nil) == nil
	}
	if done && answered() {
		c.restoring.all = false
		ch.Close()
		return
	}
	var unbound []routing.Binding
	for _, step := range steps {
		if ch.reopen() != nil {
			return // this connection is lost again
		}
		err := step.do(ch, false)
		if step.binding != nil && missing(err) {
			unbound = append(unbound, *step.binding)
		} else if err != nil && !lost(err) {
			c.cfg.Logger.Warn("polymq: cannot make anew what was declared", "scheme", "amqp", "what", step.what, "error", wrap(err))
		}
	}
	if ch.reopen() != nil || !answered() {
		return // this connection is lost again
	}
	c.restoring.all = false
	ch.Close()
	c.rebind(unbound, func() []routing.Binding { return c.declared.Topology().Bindings })
}

// wiped is whether the broker has nothing of what was durable. Settled says that queues
// alone tell: that an exchange stands says nothing, since whoever shares it may have been
// back before.
func wiped(ch *channel, t routing.Topology, settled bool) (bool, error) {
	there := func(err error) (bool, error) {
		if err == nil || !missing(err) && !lost(err) {
			return true, ch.reopen()
		}
		if lost(err) && ch.conn.IsClosed() {
			return false, err
		}
		return lost(err), ch.reopen() // a queue whose node is down is there
	}
	durable := false
	for _, x := range t.Exchanges {
		if x.Transient || settled {
			continue
		}
		durable = true
		stands, err := there(ch.ExchangeDeclarePassive(x.Name, string(x.Kind), true, false, false, false, nil))
		if stands || err != nil {
			return false, err
		}
	}
	for _, q := range t.Queues {
		if q.Transient {
			continue
		}
		durable = true
		_, err := ch.QueueDeclarePassive(q.Name, true, false, false, false, nil)
		stands, err := there(err)
		if stands || err != nil {
			return false, err
		}
	}
	return durable, nil
}

// passing is what of a topology ends with the broker's process.
func passing(t routing.Topology) (p routing.Topology) {
	exchanges, queues := map[string]bool{}, map[string]bool{}
	for _, x := range t.Exchanges {
		if x.Transient {
			exchanges[x.Name] = true
			p.Exchanges = append(p.Exchanges, x)
		}
	}
	for _, q := range t.Queues {
		if q.Transient {
			queues[q.Name] = true
			p.Queues = append(p.Queues, q)
		}
	}
	for _, b := range t.Bindings {
		if exchanges[b.Exchange] || exchanges[b.ToExchange] || queues[b.Queue] {
			p.Bindings = append(p.Bindings, b)
		}
	}
	return p
}

// A step makes one element; with quick it does not wait for the answer.
type step struct {
	what    string
	binding *routing.Binding // nil where it is none
	do      func(ch *channel, quick bool) error
}

func (c *Conn) steps(t routing.Topology) (steps []step) {
	for _, x := range t.Exchanges {
		if args, err := exchangeArgs(x); err == nil {
			steps = append(steps, step{"exchange " + x.Name, nil, func(ch *channel, quick bool) error {
				if x.Kind.Custom() {
					return c.declareCustom(c.ctx, x, args)
				}
				return ch.ExchangeDeclare(x.Name, string(x.Kind), !x.Transient, false, false, quick, args)
			}})
		}
	}
	for _, q := range t.Queues {
		if form, err := formOf(q, c.version); err == nil {
			steps = append(steps, step{"queue " + q.Name, nil, func(ch *channel, quick bool) error {
				if !quick {
					return c.declareQueue(c.ctx, ch, q.Name, form)
				}
				_, err := ch.QueueDeclare(q.Name, form.durable, form.autoDelete, form.exclusive, true, form.args)
				return err
			}})
		}
	}
	for _, b := range t.Bindings {
		steps = append(steps, step{"binding " + bindingText(b), &b, func(ch *channel, quick bool) error {
			if b.ToExchange != "" {
				return ch.ExchangeBind(b.ToExchange, b.Key, b.Exchange, quick, bindingArgs(b))
			}
			return ch.QueueBind(b.Queue, b.Key, b.Exchange, quick, bindingArgs(b))
		}})
	}
	return steps
}

// Restores implements driver.Restored.
func (c *Conn) Restores(queue string) bool { return c.declared.Restores(queue) }

var _ driver.Restored = (*Conn)(nil)
