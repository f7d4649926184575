package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// drainCall is a call of Drain.
type drainCall struct {
	ctx  context.Context
	done chan error // cap 1
}

// Drain has run drain the links, which nobody opens again, since the inbox has
// no room any more, and give back what was not handed out.
func (c *consumer) Drain(ctx context.Context) error {
	call := drainCall{ctx, make(chan error, 1)}
	select {
	case c.stop <- call:
	case <-c.ctx.Done():
		return nil // Close does all of it
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := <-call.done; err != nil {
		return fmt.Errorf("giving back what was not handed out: %w", wrap(err))
	}
	return nil
}

// giveUp gives back what was not handed out.
func (c *consumer) giveUp(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if err := c.drain(ctx); err != nil {
		return err
	}
	for { // the attempts of what has just come are being looked up
		c.mu.Lock()
		none := len(c.uncounted)+len(c.looking) == 0
		c.mu.Unlock()
		if none {
			break
		}
		if err := wait(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	untouched := c.in.Prefetched()
	c.mu.Lock()
	for _, d := range untouched {
		if c.holds[d.Seq] == d.Ref.(*hold) {
			delete(c.holds, d.Seq)
		}
	}
	c.mu.Unlock()
	if err := c.giveBack(ctx, untouched, nil); err != nil {
		return err
	}
	c.mu.Lock()
	was := c.record()
	c.holding = true
	c.mu.Unlock()
	if err := c.announce(ctx); errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	} else if err != nil {
		return err
	}
	return c.erase(ctx, was)
}
