package oracle

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/polymq/polymq"
)

// one is the step of an operation that only succeeds or fails.
func one(err error) Step { return Step{Errs: []string{class(err)}} }

func (o Declare) do(p *player, _ *Step) Step {
	err := p.c.declare(p.ctx, o.On, o.Topology)
	if err == nil {
		for _, q := range o.Topology.Queues {
			p.queues[q.Name] = q
			if q.Exclusive {
				p.owner[q.Name] = o.On
			}
		}
	}
	return one(err)
}

func (o Bind) do(p *player, _ *Step) Step { return one(p.c.bind(p.ctx, o.On, o.Binding)) }

func (o Unbind) do(p *player, _ *Step) Step { return one(p.c.unbind(p.ctx, o.On, o.Binding)) }

func (o DeleteQueue) do(p *player, _ *Step) Step {
	return one(p.c.deleteQueue(p.ctx, o.On, o.Queue, polymq.DeleteOptions{IfUnused: o.IfUnused, IfEmpty: o.IfEmpty}))
}

func (o DeleteExchange) do(p *player, _ *Step) Step {
	return one(p.c.deleteExchange(p.ctx, o.On, o.Exchange, polymq.DeleteOptions{IfUnused: o.IfUnused}))
}

func (o Publish) do(p *player, want *Step) Step {
	ms := slices.Clone(o.Messages)
	var delay time.Duration
	for i := range ms {
		if o.AsUser {
			ms[i].UserID = p.user
		}
		delay = max(delay, ms[i].Delay)
	}
	var step Step
	began := time.Now()
	before, err := p.before(want, delay)
	if err != nil {
		return one(err)
	}
	for _, err := range p.c.publish(p.ctx, o.On, o.Exchange, o.Drop, ms) {
		step.Errs = append(step.Errs, class(err))
	}
	if before != nil {
		// What is there before its delay has passed came too early.
		if now, err := p.states(); err == nil && time.Since(began) < delay && !slices.Equal(now, before) {
			step.Errs = append(step.Errs, "too early")
		}
	}
	p.late(want, delay)
	return step
}

// before is what stands before a delayed publish, to a led player.
func (p *player) before(want *Step, delay time.Duration) ([]State, error) {
	if want == nil || delay == 0 {
		return nil, nil
	}
	return p.states()
}

func (o Purge) do(p *player, _ *Step) Step {
	n, err := p.c.purge(p.ctx, o.On, o.Queue)
	step := one(err)
	step.N = n
	return step
}

// Unsettled may be some seconds old, so a led player asks until it is as
// wanted.
func (o Inspect) do(p *player, want *Step) Step {
	for end := time.Now().Add(p.waited); ; {
		info, err := p.c.inspect(p.ctx, o.On, o.Queue)
		step := one(err)
		info.Consumers = p.consumers(p.queues[o.Queue], info.Consumers)
		step.Info = info
		if want == nil || err != nil || info == want.Info || time.Now().After(end) || p.ctx.Err() != nil {
			return step
		}
		pause(p.ctx, 20*time.Millisecond)
	}
}

func (o Subscribe) do(p *player, _ *Step) Step {
	if p.subs[o.By] != nil {
		return Step{Skipped: true}
	}
	s, err := p.c.subscribe(p.ctx, o.On, o.Queue, o.Prefetch)
	if err == nil {
		p.taken[o.Queue] = true
		p.subs[o.By] = &taking{subscription: s, on: o.On, queue: o.Queue}
	}
	return one(err)
}

func (o Receive) do(p *player, want *Step) Step {
	t := p.subs[o.By]
	if t == nil {
		return Step{Skipped: true}
	}
	var step Step
	for o.Max == 0 || len(step.Delivered) < o.Max {
		patience := p.quiet
		if want != nil {
			if len(step.Delivered) == len(want.Delivered) && len(want.Errs) == 0 {
				break
			}
			patience = p.waited
		}
		ctx, cancel := context.WithTimeout(p.ctx, patience)
		r, err := t.receive(ctx)
		late := ctx.Err() != nil && errors.Is(err, context.DeadlineExceeded)
		cancel()
		if late {
			break
		}
		if err == nil && t.queue == unroutable && !p.publishes(r.Message.ID) {
			// Of another script, which ended before its delay did.
			if err = t.settle(p.ctx, r, Ack, 0); err == nil {
				continue
			}
		}
		if err != nil {
			step.Errs = append(step.Errs, class(err))
			break
		}
		t.held = append(t.held, r)
		step.Delivered = append(step.Delivered, r.Delivered)
		key := t.queue + " " + r.identity()
		step.Before = append(step.Before, p.seen[key])
		p.seen[key] = true
	}
	return step
}

// publishes reports whether the script has a message of this ID.
func (p *player) publishes(id string) bool {
	return slices.ContainsFunc(p.s.Ops, func(op Op) bool {
		o, ok := op.(Publish)
		return ok && slices.ContainsFunc(o.Messages, func(m polymq.Message) bool { return m.ID == id })
	})
}

func (o Settle) do(p *player, want *Step) Step {
	t := p.subs[o.By]
	var chosen []*received
	var step Step
	switch {
	case t == nil:
	case want != nil:
		for _, id := range want.Settled {
			if i := slices.IndexFunc(t.held, func(r *received) bool { return r.identity() == id && !slices.Contains(chosen, r) }); i >= 0 {
				chosen = append(chosen, t.held[i])
			}
		}
	case o.All:
		chosen = slices.Clone(t.held)
	case o.Nth < len(t.held):
		chosen = t.held[o.Nth : o.Nth+1 : o.Nth+1]
	}
	if len(chosen) == 0 {
		return Step{Skipped: true}
	}
	for _, r := range chosen {
		err := t.settle(p.ctx, r, o.Outcome, o.Delay)
		step.Errs = append(step.Errs, class(err))
		step.Settled = append(step.Settled, r.identity())
	}
	t.held = slices.DeleteFunc(slices.Clone(t.held), func(r *received) bool { return slices.Contains(chosen, r) })
	p.late(want, o.Delay)
	return step
}

// late waits for what was delayed; a led player sees when it has arrived.
func (p *player) late(want *Step, delay time.Duration) {
	switch {
	case delay == 0:
	case want == nil:
		pause(p.ctx, delay+p.delayed())
	default:
		pause(p.ctx, delay+margin)
	}
}

func (o Close) do(p *player, _ *Step) Step {
	t := p.subs[o.By]
	if t == nil {
		return Step{Skipped: true}
	}
	delete(p.subs, o.By)
	return one(t.close(p.ctx))
}

func (o Disconnect) do(p *player, _ *Step) Step {
	for name, t := range p.subs {
		if t.on == o.On {
			delete(p.subs, name)
		}
	}
	return one(p.c.disconnect(p.ctx, o.On))
}

func (o Wait) do(p *player, _ *Step) Step {
	pause(p.ctx, o.For)
	return Step{}
}

func (o AwaitGone) do(p *player, want *Step) Step {
	q, ok := p.queues[o.Queue]
	if !ok {
		return Step{Skipped: true}
	}
	pause(p.ctx, q.Expires+500*time.Millisecond)
	for end := time.Now().Add(p.waited); ; {
		s, err := p.state(q)
		step := one(err)
		step.After = []State{s}
		if want == nil || err != nil || s.Absent || time.Now().After(end) || p.ctx.Err() != nil {
			if !s.Absent {
				step.N = 1 // still there
			}
			return step
		}
		// On RabbitMQ the look was a use.
		pause(p.ctx, q.Expires+100*time.Millisecond)
	}
}
