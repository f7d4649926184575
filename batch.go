package polymq

import (
	"context"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
)

// batch is the messages of one Publish on their way. It is pooled: once every
// publishing that was sent is resolved by the driver, nobody else knows it.
type batch struct {
	p       *Publisher
	ids     ids
	out     []outgoing
	refs    []*driver.Publishing // those to send
	sent    int                  // so many of refs were given to the driver
	stopped error                // why the rest was not
	refused map[int]error        // by index: illegal, not to be sent
	seen    observed             // by hooks, where there are some

	left atomic.Int64  // of refs, not yet resolved, and one until run waits
	done chan struct{} // cap 1: left has come to 0 while run waited
}

// outgoing is a message on its way, a copy of the caller's.
type outgoing struct {
	pub     driver.Publishing
	message driver.Message
}

func (b *batch) add(i int) {
	o := &b.out[i]
	id := o.message.ID
	if id == "" {
		id = b.ids.next()
	}
	o.pub.Owner = b
	o.pub.Reset(&o.message, id)
	b.refs = append(b.refs, &o.pub)
}

func (b *batch) refuse(i int, id string, err error) {
	if b.refused == nil {
		b.refused = map[int]error{}
	}
	b.refused[i] = err
	b.out[i].pub.ID = id
}

// run sends the batch and waits until all of it that was sent is resolved. It
// reports whether the driver knows nothing of it any more.
func (b *batch) run(ctx context.Context) (again bool) {
	if len(b.refs) == 0 {
		return true
	}
	b.left.Store(int64(len(b.refs)) + 1)
	b.send(ctx)
	if unsent := len(b.refs) - b.sent; b.left.Add(-int64(unsent)-1) == 0 {
		return true // all was resolved on the way: there is nothing to wait for
	}
	var err error
	select {
	case <-b.done:
		return true
	case <-ctx.Done():
		err = unconfirmed(ctx)
	case <-b.p.deserted:
		err = errDeserted
	}
	again = true
	for _, pub := range b.refs[:b.sent] {
		if pub.Resolve(err) {
			again = false
		}
	}
	<-b.done
	return again
}

// send hands the batch to the driver: all at once where the window can hold
// it, else by halves of the window, so that one half is on its way while the
// other is confirmed.
func (b *batch) send(ctx context.Context) {
	piece := len(b.refs)
	if size := b.p.window.size; piece > size {
		piece = max(size/2, 1)
	}
	for b.sent < len(b.refs) {
		n := min(piece, len(b.refs)-b.sent)
		if b.stopped = b.p.usable(ctx); b.stopped != nil {
			return
		}
		if b.stopped = b.p.window.acquire(ctx, n); b.stopped != nil {
			return
		}
		refs := b.refs[b.sent : b.sent+n]
		b.sent += n
		b.p.dp.Publish(ctx, refs, b.sent == len(b.refs))
	}
}

// Resolved is the driver's word on one of the batch.
func (b *batch) Resolved(*driver.Publishing) {
	b.p.window.release(1)
	if b.left.Add(-1) == 0 {
		b.done <- struct{}{}
	}
}

func (b *batch) result() error {
	var failures []Failure
	sent := 0
	for i := range b.out {
		pub := &b.out[i].pub
		err, refused := b.refused[i]
		switch {
		case refused:
		case sent < b.sent:
			err = pub.Err()
			sent++
		default:
			err = b.stopped
		}
		if b.seen.h != nil {
			b.seen.outcome(i, pub.ID, err)
		}
		if err != nil {
			failures = append(failures, Failure{Index: i, ID: pub.ID, Err: err})
		}
	}
	if failures == nil {
		return nil
	}
	return &PublishError{Scheme: b.p.conn.scheme, Exchange: b.p.exchange, Failures: failures}
}

// reset drops what the batch held, so that the pool keeps no header or body
// alive; the short strings beside them are not worth the writes.
func (b *batch) reset() {
	for i := range b.out {
		b.out[i].message.Header, b.out[i].message.Body = nil, nil
	}
	clear(b.refs)
	b.refs = b.refs[:0]
	b.sent, b.stopped, b.refused = 0, nil, nil
}
