package nats

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

// hold is a delivery with what settling it needs.
type hold struct {
	emulate.Delivery
	ack       string
	until     time.Time // the lease runs out, as far as this process knows
	uncounted int       // earlier deliveries that do not count as attempts
}

var (
	ackBody      = []byte("+ACK")
	nakBody      = []byte("-NAK")
	progressBody = []byte("+WPI")
)

func (c *consumer) Settle(ctx context.Context, d *emulate.Delivery, o driver.Outcome, delay time.Duration) error {
	h := d.Ref.(*hold)
	if o == driver.Ack && h.uncounted == 0 {
		return c.acknowledge(h)
	}
	var err error
	c.mu.Lock()
	lost := c.gone || time.Now().After(h.until)
	if !lost && o == driver.Nack && delay <= 0 {
		c.naks[d.Seq] = time.Now()
	}
	if c.holds[d.Seq] == h { // it can be back before it is known that it was sent
		delete(c.holds, d.Seq)
	}
	c.mu.Unlock()
	switch {
	case lost:
		err = driver.ErrLost
	case o == driver.Ack:
		if err = c.s.nc.Publish(h.ack, ackBody); err == nil {
			err = c.s.nc.PublishMsg(c.h.record(h.Seq, 0))
		}
	case delay <= 0:
		err = c.s.nc.PublishRequest(h.ack, c.inbox+strconv.FormatUint(d.Seq, 10), nakBody)
	default:
		err = c.s.nc.Publish(h.ack, fmt.Appendf(nil, `-NAK {"delay": %d}`, delay.Nanoseconds()))
	}
	c.mu.Lock()
	if err != nil {
		delete(c.naks, d.Seq)
	}
	again := c.short && len(c.naks) == 0
	c.mu.Unlock()
	if again {
		signal(c.drop)
	}
	return settled(err)
}

// acknowledge is Settle for nearly all messages.
func (c *consumer) acknowledge(h *hold) error {
	now := time.Now()
	c.mu.Lock()
	lost := c.gone || now.After(h.until)
	if c.holds[h.Seq] == h {
		delete(c.holds, h.Seq)
	}
	c.refill()
	again := c.short && len(c.naks) == 0
	c.mu.Unlock()
	if again {
		signal(c.drop)
	}
	if lost {
		return driver.ErrLost
	}
	return settled(c.s.nc.Publish(h.ack, ackBody))
}

// settled is what Settle says to the outcome of a publish.
func settled(err error) error {
	if errors.Is(err, natsgo.ErrReconnectBufExceeded) {
		// Not sent: it comes again when the lease is over.
		return fmt.Errorf("%w: %w", driver.ErrLost, natsgo.ErrDisconnected)
	}
	return wrap(err)
}

// isBack hears that the server has processed what was given back.
func (c *consumer) isBack(m *natsgo.Msg) {
	seq, err := strconv.ParseUint(m.Subject[len(c.inbox):], 10, 64)
	if err != nil {
		return
	}
	c.mu.Lock()
	delete(c.naks, seq)
	again := c.short && len(c.naks) == 0
	c.mu.Unlock()
	if again {
		signal(c.drop)
	}
}

// Extend tells the server that each message is still being worked on. A hold
// whose lease ran out before it could be extended is lost, however late the
// server notices.
func (c *consumer) Extend(ctx context.Context, ds []*emulate.Delivery) (lost []*emulate.Delivery, err error) {
	now := time.Now()
	alive := make([]*hold, 0, len(ds))
	c.mu.Lock()
	for _, d := range ds {
		h := d.Ref.(*hold)
		if now.After(h.until) {
			lost = append(lost, d)
			if c.holds[d.Seq] == h {
				delete(c.holds, d.Seq)
			}
		} else {
			alive = append(alive, h)
		}
	}
	c.mu.Unlock()
	if len(alive) == 0 {
		return lost, nil
	}
	for _, h := range alive {
		if err := c.s.nc.Publish(h.ack, progressBody); err != nil {
			return lost, wrap(err)
		}
	}
	if err := c.s.flush(ctx); err != nil {
		return lost, wrap(err)
	}
	seen := time.Now()
	c.mu.Lock()
	for _, h := range alive {
		if seen.After(h.until) {
			// It may have come too late, and have extended the hold of another.
			lost = append(lost, &h.Delivery)
			if c.holds[h.Seq] == h {
				delete(c.holds, h.Seq)
			}
			continue
		}
		h.until = now.Add(c.s.opt.lease)
	}
	c.mu.Unlock()
	return lost, nil
}

// giveBack returns deliveries to the queue, oldest first. The server counts
// each delivery; those that the application never saw are recorded beside the
// queue before they are returned, so that whoever gets them next can tell.
func (c *consumer) giveBack(ctx context.Context, prefetched, handed []*emulate.Delivery) error {
	if len(prefetched)+len(handed) == 0 {
		return nil
	}
	return c.s.do(ctx, "giving back", func(ctx context.Context) error {
		// The answer to the last record says that all are stored.
		for i, d := range prefetched {
			h := d.Ref.(*hold)
			m := c.h.record(h.Seq, h.uncounted+1)
			if i < len(prefetched)-1 {
				if err := c.s.nc.PublishMsg(m); err != nil {
					return err
				}
			} else if _, err := c.s.publishOne(ctx, m); err != nil {
				if isStreamGone(err) || errors.Is(err, natsgo.ErrNoResponders) {
					return nil // nothing to give back to
				}
				return err
			}
		}
		for _, ds := range [][]*emulate.Delivery{handed, prefetched} {
			for _, d := range ds {
				if err := c.s.nc.Publish(d.Ref.(*hold).ack, nakBody); err != nil {
					return err
				}
			}
		}
		return c.s.nc.FlushWithContext(ctx)
	})
}
