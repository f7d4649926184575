package polymq

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/polymq/polymq/driver"
)

// Conn is a connection to one namespace of one broker. Its methods are safe
// for concurrent use. Where a method takes a ctx, the end of ctx ends the
// call with ctx's error; what the call had begun may or may not be done. While
// the connection is lost, calls wait for it until their ctx ends. After Close
// every method returns ErrClosed.
//
// It has no goroutine of its own but those that its driver documents.
type Conn struct {
	dc       driver.Conn
	scheme   string
	features Features
	log      *slog.Logger
	onChange func(State, error)
	hooks    *Hooks // nil: nobody observes
	refused  error  // a required feature is missing

	stateMu  sync.Mutex
	opened   bool  // what the state is may be told
	state    State // the last
	stateErr error // why, before it may be told

	ending   ending
	mu       sync.Mutex
	children map[child]struct{}  // nil once closing
	owned    map[string]struct{} // exclusive queues that were declared here

	replies atomic.Pointer[Publisher] // of Delivery.Reply
}

// child is a publisher or subscriber.
type child interface{ Close(context.Context) error }

func newConn(scheme string, opts *Options) *Conn {
	c := &Conn{scheme: scheme, log: slog.New(slog.DiscardHandler), ending: newEnding(), children: map[child]struct{}{}, owned: map[string]struct{}{}}
	if opts == nil {
		return c
	}
	if opts.Logger != nil {
		c.log = opts.Logger
	}
	c.onChange = opts.OnState
	return c
}

func (c *Conn) serve(dc driver.Conn, opts *Options) {
	c.dc, c.features = dc, dc.Features()
	if opts == nil {
		return
	}
	for _, f := range opts.Require {
		if !c.features.Has(f) {
			c.refused = unsupported("%s does not have the required feature %q", cmp.Or(c.features.Backend, "the backend"), f)
			return
		}
	}
}

// onState hears of the driver's states, and last of StateClosed, which is for all
// drivers alike. The hooks are called under the lock, so that nothing follows that.
// Before the connection is the caller's, the last state is kept.
func (c *Conn) onState(s State, err error) {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	switch {
	case !c.opened:
		c.state, c.stateErr = s, err
	case s != c.state && c.state != StateClosed:
		c.tell(s, err)
	}
}

// begin tells the first state, which no driver needs to tell, and what has become
// of it since.
func (c *Conn) begin() {
	c.stateMu.Lock()
	defer c.stateMu.Unlock()
	last, err := c.state, c.stateErr
	c.opened = true
	c.tell(StateConnected, nil)
	if last != c.state && last != 0 {
		c.tell(last, err)
	}
}

func (c *Conn) tell(s State, err error) {
	c.state = s
	if err != nil {
		c.log.Warn("polymq: connection "+s.String(), "scheme", c.scheme, "error", err)
	} else {
		c.log.Info("polymq: connection "+s.String(), "scheme", c.scheme)
	}
	if c.onChange != nil {
		c.onChange(s, err)
	}
	if c.hooks != nil {
		c.hooks.state(s, err)
	}
}

// usable is the error of a call that need not reach the driver.
func (c *Conn) usable(ctx context.Context) error {
	switch {
	case c.refused != nil:
		return c.refused
	case c.ending.begun.Load():
		return ErrClosed
	}
	return ctx.Err()
}

func (c *Conn) wrap(op, name string, err error) error { return wrap(op, c.scheme, name, err) }

// String names the backend. What is printed of a connection shows no part of its URL.
func (c *Conn) String() string { return "polymq.Conn(" + c.scheme + ")" }

// GoString is String.
func (c *Conn) GoString() string { return c.String() }

// Features is what the backend has and refuses.
func (c *Conn) Features() Features {
	f := c.features
	f.Support = maps.Clone(f.Support)
	return f
}

// Health is nil when the broker answers.
func (c *Conn) Health(ctx context.Context) error {
	err := c.usable(ctx)
	if err == nil {
		err = c.dc.Health(ctx)
	}
	return c.wrap("health", "", err)
}

// Native is the client library's own handle, as the driver's package
// documents; nil where there is none. What is done with it is beyond the
// promises of this package.
func (c *Conn) Native() any { return c.dc.Native() }

// Close closes the subscribers, which gives back at once what they hold, and
// the publishers, which waits for what is on its way, and then the connection.
// When ctx ends first, what is still on its way is resolved with
// ErrUnconfirmed and the error is ctx's. Close is idempotent: further calls
// wait for the first and return its result.
func (c *Conn) Close(ctx context.Context) error {
	err := c.ending.do(ctx, func() error {
		c.mu.Lock()
		children := slices.Collect(maps.Keys(c.children))
		c.children = nil
		c.mu.Unlock()
		errs := make([]error, len(children)+1)
		var wg sync.WaitGroup
		for i, ch := range children {
			wg.Go(func() { errs[i] = ch.Close(ctx) })
		}
		wg.Wait()
		errs[len(children)] = c.dc.Close(ctx)
		c.onState(StateClosed, nil)
		return first(errs...)
	})
	return c.wrap("close", "", err)
}

// adopt makes ch end with the connection; ErrClosed when that is ending.
func (c *Conn) adopt(ctx context.Context, ch child) error {
	c.mu.Lock()
	if c.children != nil {
		c.children[ch] = struct{}{}
		c.mu.Unlock()
		return nil
	}
	c.mu.Unlock()
	_ = ch.Close(ctx)
	return ErrClosed
}

func (c *Conn) forget(ch child) {
	c.mu.Lock()
	delete(c.children, ch)
	c.mu.Unlock()
}
