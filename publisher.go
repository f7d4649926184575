package polymq

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// PublisherOptions are the options of a publisher. nil means the defaults.
type PublisherOptions struct {
	// Window is how many messages may be on their way at once, sent and not
	// yet confirmed. A full window blocks. Default: 256.
	Window int
	// DropUnroutable makes a message that no queue takes a success instead of
	// ErrUnroutable. Default: false.
	DropUnroutable bool
	// Middleware wraps Publish and PublishAsync, the first being the
	// outermost. For PublishAsync its next returns when the message is sent,
	// not when it is confirmed, and takes exactly one message. Default: none.
	Middleware []PublishMiddleware
}

const defaultWindow = 256

// Publisher publishes to one exchange. It is safe for concurrent use; what one
// goroutine publishes one after another keeps its order. It is a cheap handle
// and has no goroutine of its own but those that its driver documents.
//
// While the connection is lost, publishing waits for it. A message whose
// outcome got lost with the connection is sent again with the same ID, until
// the caller gives up.
type Publisher struct {
	conn     *Conn
	exchange string
	dp       driver.Publisher
	chain    PublishFunc // nil without middleware
	window   window
	batches  sync.Pool     // of *batch
	receipts receipts      // without an outcome
	deserted chan struct{} // closed when Close no longer waits for outcomes
	ending   ending
}

// String names the exchange.
func (p *Publisher) String() string { return fmt.Sprintf("polymq.Publisher(exchange %q)", p.exchange) }

// GoString is String.
func (p *Publisher) GoString() string { return p.String() }

// Publisher makes a publisher to an exchange; "" is the default exchange,
// which routes to the queue that Message.Key names. Whether the exchange
// exists is asked by every publish, not here.
func (c *Conn) Publisher(ctx context.Context, exchange string, opts *PublisherOptions) (*Publisher, error) {
	p, err := c.publisher(ctx, exchange, orZero(opts))
	if err != nil {
		return nil, c.wrap("publisher", exchange, err)
	}
	return p, nil
}

func (c *Conn) publisher(ctx context.Context, exchange string, opts PublisherOptions) (*Publisher, error) {
	if err := c.usable(ctx); err != nil {
		return nil, err
	}
	if exchange == routing.DefaultExchange {
		exchange = ""
	}
	if err := routing.CheckKey(exchange); err != nil {
		return nil, err
	}
	switch {
	case opts.Window < 0:
		return nil, invalid("Window: %d: want 1 or more, or 0 for the default", opts.Window)
	case opts.Window == 0:
		opts.Window = defaultWindow
	}
	dp, err := c.dc.Publisher(ctx, driver.PublisherConfig{Exchange: exchange, DropUnroutable: opts.DropUnroutable})
	if err != nil {
		return nil, err
	}
	p := &Publisher{conn: c, exchange: exchange, dp: dp, deserted: make(chan struct{}), ending: newEnding()}
	p.window.size, p.window.free = opts.Window, opts.Window
	if len(opts.Middleware) > 0 {
		p.chain = p.last
		for _, mw := range slices.Backward(opts.Middleware) {
			p.chain = mw(p.chain)
		}
	}
	if err := c.adopt(ctx, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Publish sends messages, in order, and waits for their outcomes. It returns
// nil when all are confirmed: every queue that a message was routed to has it,
// as safely as the queue was declared. Otherwise it returns a *PublishError
// with a Failure for each message that is not confirmed, whose Err is
//
//	ErrUnroutable             no queue takes it
//	ErrNotFound               the exchange does not exist
//	ErrRejected               at least one queue refused it, others may have it
//	ErrTooLarge, ErrInvalid, errors.ErrUnsupported
//	                          this message cannot be sent and was not
//	ErrUnconfirmed            ctx or the connection ended first: it may or may
//	                          not be there
//	ErrClosed, or ctx's error without ErrUnconfirmed
//	                          it was not sent
//
// A message that fails does not keep the others back. More messages than the
// window holds are sent piece by piece.
//
// Publish does not change the messages, and does not read them after it has
// returned; but where it returned ErrUnconfirmed because ctx ended, a write
// that had begun may go on reading for a moment.
func (p *Publisher) Publish(ctx context.Context, msgs ...*Message) error {
	if p.chain != nil {
		if ctx.Value(asyncKey{}) != nil {
			// Middleware publishes something of its own on the way of a
			// PublishAsync: that must not become the call's receipt.
			ctx = context.WithValue(ctx, asyncKey{}, (*asyncCall)(nil))
		}
		return p.chain(ctx, copies(msgs)...)
	}
	return p.send(ctx, msgs)
}

// copies are for middleware, which may keep them: so that without middleware
// what the caller passes can stay on its stack.
func copies(msgs []*Message) []*Message {
	cs := make([]*Message, len(msgs))
	for i, m := range msgs {
		if m != nil {
			c := *m
			cs[i] = &c
		}
	}
	return cs
}

// last is the innermost PublishFunc.
func (p *Publisher) last(ctx context.Context, msgs ...*Message) error {
	if call, ok := ctx.Value(asyncKey{}).(*asyncCall); ok && call != nil && call.p == p {
		return call.send(ctx, msgs)
	}
	return p.send(ctx, msgs)
}

// send publishes without middleware. It must not let msgs escape, nor the
// messages: the batch has copies.
func (p *Publisher) send(ctx context.Context, msgs []*Message) error {
	if len(msgs) == 0 {
		return nil
	}
	b := p.batch(len(msgs))
	if p.conn.hooks.publishes() {
		ctx = b.seen.begin(ctx, p, false, msgs...)
	}
	for i, m := range msgs {
		if b.seen.h != nil {
			m = b.seen.event.Messages[i].Message
		}
		if err := p.conn.prepare(&b.out[i].message, m); err != nil {
			b.refuse(i, idOf(m), err)
			continue
		}
		b.add(i)
	}
	again := b.run(ctx)
	err := b.result()
	if b.seen.h != nil {
		b.seen.end(err)
	}
	if again {
		b.reset()
		p.batches.Put(b)
	}
	return err
}

func (p *Publisher) batch(n int) *batch {
	b, _ := p.batches.Get().(*batch)
	if b == nil {
		b = &batch{p: p, done: make(chan struct{}, 1)}
	}
	if cap(b.out) < n {
		b.out = make([]outgoing, n)
		b.refs = make([]*driver.Publishing, 0, n)
	}
	b.out = b.out[:n]
	return b
}

// usable is the error of a publish that need not be begun.
func (p *Publisher) usable(ctx context.Context) error {
	if p.ending.begun.Load() {
		return ErrClosed
	}
	return p.conn.usable(ctx)
}

// Flush waits until everything that was on its way when it was called has its
// outcome; publishes that begin meanwhile wait for it. It does not say what
// the outcomes are: the receipts do. The end of ctx ends the wait and nothing
// else.
func (p *Publisher) Flush(ctx context.Context) error {
	err := p.window.acquire(ctx, p.window.size)
	if err == nil {
		p.window.release(p.window.size)
	}
	return p.conn.wrap("flush", p.exchange, err)
}

// Close takes no more messages and waits for the outcomes of those on their
// way. When ctx ends first they are resolved with ErrUnconfirmed and the error
// is ctx's. Close is idempotent: further calls wait for the first and return
// its result.
func (p *Publisher) Close(ctx context.Context) error {
	err := p.ending.do(ctx, func() error {
		defer p.conn.forget(p)
		err := p.window.close(ctx)
		if err != nil {
			close(p.deserted)
			p.receipts.resolve(errDeserted)
		}
		return first(err, p.dp.Close(ctx))
	})
	return p.conn.wrap("close", p.exchange, err)
}

func idOf(m *Message) string {
	if m == nil {
		return ""
	}
	return m.ID
}

var errDeserted = fmt.Errorf("%w: the publisher was closed before the outcome was known", ErrUnconfirmed)
