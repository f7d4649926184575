package amqp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// temporaryRelay is how long the relay of a queue that ends by itself stands
// after it was last declared: longer than any delay, and it is declared again
// in each epoch.
const temporaryRelay = maxDelay + 24*time.Hour

func relayQueue(queue string) string {
	name := delayPrefix + "to." + queue
	if len(name) > 255 {
		sum := sha256.Sum256([]byte(queue))
		name = delayPrefix + "to." + hex.EncodeToString(sum[:])
	}
	return name
}

// ensureRelay declares the way of a delayed copy back to the queue that a life
// consumes.
func (c *Conn) ensureRelay(ctx context.Context, queue string, l *life) error {
	unlock, err := c.delays.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	epoch := c.delays.known
	if l.relayedIn == epoch {
		return nil
	}
	temporary := l.kind.temporary
	err = c.do(ctx, func(ch *channel) error { return declareRelay(ch, queue, temporary) })
	if err != nil {
		return delayError(err)
	}
	l.relayedIn = epoch
	return nil
}

func declareRelay(ch *channel, queue string, temporary bool) error {
	if err := bindReturn(ch, queue); err != nil {
		return err
	}
	relay, args := relayQueue(queue), safeLetters(exchangeIn, 0)
	if temporary {
		args[argExpires] = temporaryRelay.Milliseconds()
	}
	_, err := ch.QueueDeclare(relay, true, false, false, false, args)
	if errors.Is(wrap(err), driver.ErrConflict) {
		err = ch.reopen() // made for a queue of that name that was or was not temporary
	}
	if err != nil {
		return err
	}
	return ch.QueueBind(relay, "", exchangeOut, false, returnMatch(queue))
}

func returnMatch(queue string) amqp091.Table {
	return amqp091.Table{"x-match": "all", headerQueue: queue}
}

// bindReturn is the last part of the way back, which goes with the queue.
func bindReturn(ch *channel, queue string) error {
	return ch.QueueBind(queue, "", exchangeIn, false, returnMatch(queue))
}

// restoreReturn binds a queue that a life begins to consume: it may have been
// made anew, while copies of messages for it waited. Where the vhost has no
// delays yet, the queue is gone again or the user may not bind it, the first
// delayed Nack finds out. Each life asks: other connections make delays too. It
// does not wait for what others declare.
func (c *Conn) restoreReturn(ctx context.Context, queue string) error {
	err := c.do(ctx, func(ch *channel) error {
		if err := ch.ExchangeDeclarePassive(exchangeIn, "headers", true, false, false, false, nil); err != nil {
			return err
		}
		return bindReturn(ch, queue)
	})
	if errors.Is(err, driver.ErrNotFound) || errors.Is(err, driver.ErrPermission) {
		return nil
	}
	return err
}

// forgetDelay removes the relay of a queue that was deleted, unless the queue
// has been made anew meanwhile: then the relay serves it. Quorum queues know no
// conditional deletion, so it looks before and after.
func (c *Conn) forgetDelay(ctx context.Context, queue string) error {
	relay := relayQueue(queue)
	err := c.do(ctx, func(ch *channel) error {
		if _, err := ch.QueueDeclarePassive(relay, true, false, false, false, nil); err != nil {
			return err
		}
		_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if !missing(err) {
			return err
		}
		if err := ch.reopen(); err != nil {
			return err
		}
		if _, err := ch.QueueDelete(relay, false, false, false); err != nil {
			return err
		}
		if _, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil); err != nil {
			return err
		}
		return declareRelay(ch, queue, false)
	})
	switch {
	case errors.Is(err, driver.ErrNotFound), errors.Is(err, driver.ErrInUse):
		return nil
	case errors.Is(err, driver.ErrPermission):
		return nil // whoever may make relays removes it
	}
	return err
}

// settleLater publishes a copy that comes back after the delay, and then
// acknowledges the original. Where it fails, the original is as it was.
func (s *subscriber) settleLater(ctx context.Context, in *delivery, delay time.Duration) error {
	if delay > maxDelay {
		return fmt.Errorf("%w: a delay of %v: the longest is %v", errors.ErrUnsupported, delay, maxDelay)
	}
	if err := s.Extend(ctx, &in.Delivery); err != nil {
		return err
	}
	if in.life.kind.limit > 0 && in.Attempt >= in.life.kind.limit {
		return s.settle(in, driver.Nack) // the last attempt: the broker dead-letters
	}
	units := unitsOf(delay)
	var err error
	for try := range 2 {
		if try > 0 {
			s.c.delays.forget() // somebody deleted the levels since they were declared
		}
		if err = s.c.ensureLevels(ctx, units); err == nil {
			err = s.c.ensureRelay(ctx, s.queue, in.life)
		}
		if err == nil && s.c.byMover(&in.sent) {
			err = s.c.ensureDue(ctx)
		}
		if err != nil {
			return err
		}
		err = s.c.publishCopy(ctx, in, units)
		if !errors.Is(err, driver.ErrNotFound) && !errors.Is(err, driver.ErrUnroutable) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("store the delayed copy: %w", err)
	}
	return s.settle(in, driver.Ack)
}

// byMover reports whether a copy comes back through a mover: the broker's dead
// letters lose their TTL, and from RabbitMQ 4.0 to 4.2 a queue gives those with a
// priority of 5 and more out first, but lets only the one at its head expire.
func (c *Conn) byMover(m *driver.Message) bool {
	return m.TTL > 0 || m.Priority >= 5 && c.version.atLeast(4, 0) && !c.version.atLeast(4, 3)
}

// publishCopy sends a copy of a delivery into the levels.
func (c *Conn) publishCopy(ctx context.Context, in *delivery, units uint64) error {
	m := travelling(&in.sent, in.Exchange)
	if c.byMover(&in.sent) {
		toMover(&m)
		m.Header[headerBack] = in.Queue
	} else {
		m.Header[headerQueue] = in.Queue
	}
	m.Header[headerAttempts] = int64(in.Attempt)
	if m.UserID != "" {
		m.Header[headerUser] = m.UserID // the broker takes only this connection's own
		m.UserID = ""
	}
	owner := make(awaited, 1)
	p := &driver.Publishing{Message: &m, ID: m.ID, Owner: owner}
	from := &publisher{out: c.out, own: true, exchange: addLevels(m.Header, units)}
	from.Publish(ctx, []*driver.Publishing{p}, true)
	select {
	case <-owner:
		return p.Err()
	case <-ctx.Done():
		p.Resolve(driver.ErrUnconfirmed)
		return ctx.Err()
	}
}

// awaited hears of one publishing.
type awaited chan struct{}

func (a awaited) Resolved(*driver.Publishing) { a <- struct{}{} }
