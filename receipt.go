package polymq

import (
	"context"
	"fmt"
	"sync"

	"github.com/polymq/polymq/driver"
)

// Receipt tells the outcome of a message of PublishAsync. It is safe for
// concurrent use.
type Receipt struct {
	p *Publisher // nil where middleware did not let the message through
	outgoing
	refs [1]*driver.Publishing // &pub, the batch that the driver gets
	told bool                  // hooks hear of the outcome before anybody

	mu   sync.Mutex
	done chan struct{} // made by who first needs it

	prev, next *Receipt // in p.receipts, guarded by its mutex
}

// String names the message by its ID.
func (r *Receipt) String() string { return fmt.Sprintf("polymq.Receipt(message %q)", r.pub.ID) }

// GoString is String.
func (r *Receipt) GoString() string { return r.String() }

// Done is closed when the outcome is known.
func (r *Receipt) Done() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.done == nil {
		r.done = make(chan struct{})
	}
	return r.done
}

// Err is the outcome: nil when the message is confirmed, and as long as the
// outcome is not known; else an *Error as in the failures of Publish.
func (r *Receipt) Err() error {
	if !r.known() {
		return nil
	}
	return r.err()
}

func (r *Receipt) err() error {
	if err := r.pub.Err(); err != nil {
		return r.p.conn.wrap("publish", r.p.exchange, err)
	}
	return nil
}

// known reports whether the outcome may be told.
func (r *Receipt) known() bool {
	if !r.told {
		return r.pub.Resolved()
	}
	select {
	case <-r.Done():
		return true
	default:
		return false
	}
}

// Wait waits for the outcome and returns it. The end of ctx ends the wait with
// ctx's error, not the publish: Wait can be called again.
func (r *Receipt) Wait(ctx context.Context) error {
	if !r.known() {
		select {
		case <-r.Done():
		case <-ctx.Done():
			return r.p.conn.wrap("wait", r.p.exchange, ctx.Err())
		}
	}
	return r.err()
}

// ID is the message's ID, the generated one where it had none.
func (r *Receipt) ID() string { return r.pub.ID }

var closedChan = make(chan struct{})

func init() { close(closedChan) }

// receiptOwner keeps driver.Owner's method out of Receipt's.
type receiptOwner Receipt

func (o *receiptOwner) Resolved(*driver.Publishing) {
	o.mu.Lock()
	if o.done == nil {
		o.done = closedChan
	} else {
		close(o.done)
	}
	o.mu.Unlock()
	if o.p != nil {
		o.p.receipts.remove((*Receipt)(o))
		o.p.window.release(1)
	}
}

// receipts are those of a publisher that have no outcome yet.
type receipts struct {
	mu    sync.Mutex
	first *Receipt
}

func (l *receipts) add(r *Receipt) {
	l.mu.Lock()
	if r.next = l.first; r.next != nil {
		r.next.prev = r
	}
	l.first = r
	l.mu.Unlock()
}

func (l *receipts) remove(r *Receipt) {
	l.mu.Lock()
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		l.first = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next = nil, nil
	l.mu.Unlock()
}

// resolve gives all of them an outcome.
func (l *receipts) resolve(err error) {
	var all []*Receipt
	l.mu.Lock()
	for r := l.first; r != nil; r = r.next {
		all = append(all, r)
	}
	l.mu.Unlock()
	for _, r := range all {
		r.pub.Resolve(err)
	}
}

// PublishAsync sends a message and does not wait for its outcome, which the
// Receipt tells. ctx bounds only the wait for the window: its end afterwards
// has no effect, and the message is on its way until it has an outcome or the
// publisher is closed. An error means that the message was not sent.
//
// The message must not be changed before its outcome is known.
func (p *Publisher) PublishAsync(ctx context.Context, m *Message) (*Receipt, error) {
	if p.chain == nil {
		return p.sendAsync(ctx, m)
	}
	call := &asyncCall{p: p}
	if err := p.chain(context.WithValue(ctx, asyncKey{}, call), copies([]*Message{m})...); err != nil {
		return nil, err
	}
	if call.receipt == nil {
		// Middleware has taken it upon itself to call this a success.
		call.receipt = &Receipt{}
		call.receipt.pub.Owner = (*receiptOwner)(call.receipt)
		call.receipt.pub.Reset(nil, idOf(m))
		call.receipt.pub.Resolve(nil)
	}
	return call.receipt, nil
}

// asyncCall leads from the innermost PublishFunc back to PublishAsync.
type asyncCall struct {
	p       *Publisher
	receipt *Receipt
}

type asyncKey struct{}

func (call *asyncCall) send(ctx context.Context, msgs []*Message) error {
	if len(msgs) != 1 {
		return call.p.conn.wrap("publish", call.p.exchange, invalid("middleware made %d messages of one: PublishAsync takes exactly one", len(msgs)))
	}
	r, err := call.p.sendAsync(ctx, msgs[0])
	if err == nil {
		call.receipt = r
	}
	return err
}

func (p *Publisher) sendAsync(ctx context.Context, m *Message) (*Receipt, error) {
	if !p.conn.hooks.publishes() {
		return p.start(ctx, m, nil)
	}
	seen := new(observed)
	ctx = seen.begin(ctx, p, true, m)
	r, err := p.start(ctx, seen.event.Messages[0].Message, seen)
	if err != nil {
		seen.outcome(0, idOf(m), err)
		seen.end(err)
	}
	return r, err
}

func (p *Publisher) start(ctx context.Context, m *Message, seen *observed) (*Receipt, error) {
	r := &Receipt{p: p}
	err := p.conn.prepare(&r.message, m)
	if err == nil {
		err = p.usable(ctx)
	}
	if err == nil {
		err = p.window.acquire(ctx, 1)
	}
	if err != nil {
		return nil, p.conn.wrap("publish", p.exchange, err)
	}
	id := r.message.ID
	if id == "" {
		id = newID()
	}
	r.refs[0] = &r.pub
	r.pub.Owner = (*receiptOwner)(r)
	if seen != nil {
		r.told, r.pub.Owner = true, observedReceipt{r, seen}
	}
	r.pub.Reset(&r.message, id)
	p.receipts.add(r)
	// Not ctx: its end is to have no effect from here on.
	p.dp.Publish(context.Background(), r.refs[:], false)
	return r, nil
}
