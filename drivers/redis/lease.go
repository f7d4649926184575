package redis

import (
	"context"
	"time"

	"github.com/polymq/polymq/driver/emulate"
)

// Extend renews the lease, which all holds share. It waits for call only where the
// lease was lost: call is held while an answer is read, which can take for longer.
func (c *consumer) Extend(ctx context.Context, ds []*emulate.Delivery) ([]*emulate.Delivery, error) {
	sent := time.Now()
	c.mu.Lock()
	name, joined := c.name, !c.until.IsZero()
	c.mu.Unlock()
	if joined { // else nothing is held, and that the server does not know it is no news
		if err := c.extend(ctx, name, sent); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var lost []*emulate.Delivery
	for _, d := range ds {
		h := d.Ref.(*hold)
		if h.life != c.life {
			lost = append(lost, d)
		}
		h.until = sent.Add(c.s.cfg.lease)
	}
	return lost, nil
}

func (c *consumer) extend(ctx context.Context, name string, sent time.Time) error {
	v, err := c.s.fcall(ctx, c.fns.extend, c.key, name, c.lease())
	if err != nil {
		return err
	}
	if v == int64(1) {
		c.renewed(name, sent)
		return nil
	}
	if err := c.named(ctx); err != nil {
		return err
	}
	defer c.call.unlock()
	if name == c.name {
		c.verdict(v)
	}
	return nil
}

// renewed notes that a call renewed the lease that runs under the name.
func (c *consumer) renewed(name string, sent time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if until := sent.Add(c.s.cfg.lease); name == c.name && c.until.Before(until) {
		c.until = until
	}
}

// late reports that the lease may be over: what was read may be somebody else's by now.
func (c *consumer) late() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return !time.Now().Before(c.until)
}

// stay renews the lease while a long answer comes, where it is half over: the reader can
// send nothing then, and who holds nothing is not extended.
func (c *consumer) stay() {
	lease := c.s.cfg.lease
	c.mu.Lock()
	due := !c.renewing && time.Until(c.until) < lease/2 && c.ctx.Err() == nil
	c.renewing = c.renewing || due
	c.mu.Unlock()
	if !due {
		return
	}
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	if c.s.closed.Load() {
		return
	}
	c.s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, lease/3)
		defer cancel()
		_, _ = c.Extend(ctx, nil) // what it cannot renew is late
		c.mu.Lock()
		c.renewing = false
		c.mu.Unlock()
	})
}
