package polymq

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/polymq/polymq/driver"
)

// observe asks the observers for their hooks and makes one of them; nil where
// there is none.
func observe(observers []Observer, info ConnInfo) *Hooks {
	var all *Hooks
	for _, o := range observers {
		if o == nil {
			continue
		}
		switch h := o.Observe(info); {
		case h == nil:
		case all == nil:
			one := *h
			all = &one
		default:
			all = all.and(h)
		}
	}
	return all
}

// and is h and then other, the other way round where something ends.
func (h *Hooks) and(other *Hooks) *Hooks {
	return &Hooks{
		PublishBegin: begins(h.PublishBegin, other.PublishBegin),
		PublishEnd:   both(other.PublishEnd, h.PublishEnd),
		Receive:      both(other.Receive, h.Receive),
		ProcessBegin: begins(h.ProcessBegin, other.ProcessBegin),
		ProcessEnd:   both(other.ProcessEnd, h.ProcessEnd),
		Settle:       both(other.Settle, h.Settle),
		Release: func(e ReleaseEvent) {
			other.release(e)
			h.release(e)
		},
		State: func(state State, err error) {
			other.state(state, err)
			h.state(state, err)
		},
	}
}

func begins[E any](first, second func(context.Context, E) context.Context) func(context.Context, E) context.Context {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(ctx context.Context, e E) context.Context { return second(first(ctx, e), e) }
}

func both[E any](first, second func(context.Context, E)) func(context.Context, E) {
	switch {
	case first == nil:
		return second
	case second == nil:
		return first
	}
	return func(ctx context.Context, e E) {
		first(ctx, e)
		second(ctx, e)
	}
}

// publishes reports whether publishing is to be told.
func (h *Hooks) publishes() bool { return h != nil && (h.PublishBegin != nil || h.PublishEnd != nil) }

func (h *Hooks) release(e ReleaseEvent) {
	if h.Release != nil && e.Count > 0 {
		h.Release(e)
	}
}

func (h *Hooks) state(s State, err error) {
	if h.State != nil {
		h.State(s, err)
	}
}

// observed is a publish as its hooks see it.
type observed struct {
	h     *Hooks
	ctx   context.Context
	event PublishEvent
	// Copies for the hooks, so that without them what the caller passes can
	// stay on its stack.
	one  [1]Message
	many []Message
}

// begin shows copies of msgs to the hook.
func (o *observed) begin(ctx context.Context, p *Publisher, async bool, msgs ...*Message) context.Context {
	o.h = p.conn.hooks
	o.event = PublishEvent{Exchange: p.exchange, Async: async, Begun: time.Now(), Messages: o.event.Messages[:0]}
	shown := o.one[:]
	if len(msgs) > 1 {
		o.many = slices.Grow(o.many[:0], len(msgs))[:len(msgs)]
		shown = o.many
	}
	for i, m := range msgs {
		var e PublishedMessage
		if m != nil {
			shown[i] = *m
			e.Message = &shown[i]
		}
		o.event.Messages = append(o.event.Messages, e)
	}
	if o.h.PublishBegin != nil {
		ctx = o.h.PublishBegin(ctx, o.event)
	}
	o.ctx = ctx
	return ctx
}

// outcome notes what became of a message.
func (o *observed) outcome(i int, id string, err error) {
	o.event.Messages[i].ID, o.event.Messages[i].Err = id, err
}

func (o *observed) end(err error) {
	if o.event.Err = err; o.h.PublishEnd != nil {
		o.h.PublishEnd(o.ctx, o.event)
	}
	clear(o.event.Messages)
	o.one[0] = Message{}
	clear(o.many)
	o.h, o.ctx, o.event.Err = nil, nil, nil
}

// observedReceipt is the owner of a PublishAsync that hooks see.
type observedReceipt struct {
	r    *Receipt
	seen *observed
}

func (o observedReceipt) Resolved(pub *driver.Publishing) {
	o.seen.outcome(0, pub.ID, pub.Err())
	o.seen.end(o.r.err())
	(*receiptOwner)(o.r).Resolved(pub)
}

// now is the time, where a hook will ask for it.
func (s *Subscriber) now() time.Time {
	if s.hooks == nil {
		return time.Time{}
	}
	return time.Now()
}

// received tells that deliveries are handed out, or why none are.
func (s *Subscriber) received(ctx context.Context, e ReceiveEvent) {
	if e.Err != nil && ctx.Err() != nil && errors.Is(e.Err, ctx.Err()) {
		return
	}
	if e.Queue = s.queue; s.hooks.Receive != nil {
		s.hooks.Receive(ctx, e)
	}
	s.handedOut(len(e.Deliveries))
}

// receivedOne is received for one delivery; a slice is made only to be shown.
func (s *Subscriber) receivedOne(ctx context.Context, begun time.Time, handler bool, d *Delivery) {
	if s.hooks.Receive == nil {
		s.handedOut(1)
		return
	}
	s.received(ctx, ReceiveEvent{Handler: handler, Begun: begun, Deliveries: []*Delivery{d}})
}

func (s *Subscriber) handedOut(n int) {
	if s.inFlight.Add(int64(n)) < 0 {
		s.hooks.release(ReleaseEvent{s.queue, n}) // the subscriber was closed meanwhile
	}
}

// released tells how many deliveries were in flight when the subscriber ended,
// and makes the count negative for good: who comes later is not counted twice.
func (s *Subscriber) released() {
	s.hooks.release(ReleaseEvent{s.queue, int(s.inFlight.Swap(math.MinInt64 / 2))})
}

// settled tells of a settlement; final says that there can be no other.
func (s *Subscriber) settled(ctx context.Context, e SettleEvent, final bool) {
	e.Done = final && s.inFlight.Add(-1) >= 0
	if s.hooks.Settle != nil {
		s.hooks.Settle(ctx, e)
	}
}

var errNoReturn = errors.New("the handler did not return: it panicked or ended its goroutine")

// observed calls the handler between the hooks, and returns the ctx that it had.
func (r *runner) observed(d *Delivery) (ctx context.Context, err error) {
	h, e := r.s.hooks, ProcessEvent{Delivery: d, Begun: time.Now()}
	ctx = r.working
	if h.ProcessBegin != nil {
		ctx = h.ProcessBegin(ctx, e)
	}
	e.Err = errNoReturn
	defer func() {
		if h.ProcessEnd != nil {
			h.ProcessEnd(ctx, e)
		}
	}()
	e.Err = r.h(ctx, d)
	return ctx, e.Err
}

// withValues is a context with the values of another.
type withValues struct {
	context.Context
	values context.Context
}

func (c withValues) Value(key any) any {
	if v := c.values.Value(key); v != nil {
		return v
	}
	return c.Context.Value(key)
}
