package amqp

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
)

// A delayed message waits in levels: queue k holds for delayUnit<<k, and a
// message passes those queues that make up its delay, the longest first. All
// in one queue wait equally long, so none waits for another's delay. Exchange
// k leads to queue k where the message's header says so, else (it is the
// alternate) to exchange k-1; queue k dead-letters to exchange k-1, and level 0
// to exchangeOut. These are headers exchanges: the routing key stays the
// application's. From exchangeOut a message goes to a relay of its queue, and
// from there through exchangeIn to the queue itself: a queue that is full,
// refuses or is missing holds up its own relay only, which keeps the message
// and tries again. What finds no relay, since its queue was deleted, is kept in
// goneName for goneTime.
//
// All of it is durable, and moves by the broker's confirmed dead-lettering.
const (
	delayPrefix = "polymq.delay."
	exchangeOut = delayPrefix + "out"
	exchangeIn  = delayPrefix + "in"
	goneName    = delayPrefix + "gone" // an exchange and its queue
	headerBit   = "polymq-delay-"

	delayUnit   = 10 * time.Millisecond
	delayLevels = 28
	maxDelay    = (1<<delayLevels - 1) * delayUnit // a month

	goneTime = 7 * 24 * time.Hour
	goneMost = 100_000 // messages
)

func levelExchange(k int) string {
	if k < 0 {
		return exchangeOut
	}
	return delayPrefix + "x" + strconv.Itoa(k)
}

func levelQueue(k int) string { return delayPrefix + "q" + strconv.Itoa(k) }

func relayQueue(queue string) string {
	name := delayPrefix + "to." + queue
	if len(name) > 255 {
		sum := sha256.Sum256([]byte(queue))
		name = delayPrefix + "to." + hex.EncodeToString(sum[:])
	}
	return name
}

// delays is what a connection knows to stand of it. What leads back to a queue
// is known by each life of a subscriber, since it goes with the queue.
type delays struct {
	turn      chan struct{} // cap 1: held while declaring
	levels    uint64        // bit k: queue k
	exchanges int           // exchanges 0 to exchanges-1
	ends      bool          // what declareEnds makes
}

func newDelays() delays { return delays{turn: make(chan struct{}, 1)} }

// lock waits for the turn to declare; the caller ends it with the function.
func (d *delays) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case d.turn <- struct{}{}:
		return func() { <-d.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ensureDelay declares what a delay of so many units needs, back to the queue
// that a life consumes.
func (c *Conn) ensureDelay(ctx context.Context, units uint64, queue string, l *life, anew bool) error {
	d := &c.delays
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if anew {
		d.levels, d.exchanges, d.ends, l.relayed = 0, 0, false, false
	}
	count := bits.Len64(units)
	if d.ends && d.levels&units == units && d.exchanges >= count && l.relayed {
		return nil
	}
	known, relayed := *d, l.relayed
	err = c.do(ctx, func(ch *channel) error {
		if !known.ends {
			if err := declareEnds(ch); err != nil {
				return err
			}
		}
		for k := known.exchanges; k < count; k++ {
			args := amqp091.Table{argAlternate: levelExchange(k - 1)}
			if err := ch.ExchangeDeclare(levelExchange(k), "headers", true, false, false, false, args); err != nil {
				return err
			}
		}
		for k := range count {
			if units&^known.levels&(1<<k) == 0 {
				continue
			}
			args := safeLetters(levelExchange(k-1), delayUnit<<k)
			if _, err := ch.QueueDeclare(levelQueue(k), true, false, false, false, args); err != nil {
				return err
			}
			match := amqp091.Table{"x-match": "all", headerBit + strconv.Itoa(k): true}
			if err := ch.QueueBind(levelQueue(k), "", levelExchange(k), false, match); err != nil {
				return err
			}
		}
		if relayed {
			return nil
		}
		if err := bindReturn(ch, queue); err != nil {
			return err
		}
		relay := relayQueue(queue)
		if _, err := ch.QueueDeclare(relay, true, false, false, false, safeLetters(exchangeIn, 0)); err != nil {
			return err
		}
		return ch.QueueBind(relay, "", exchangeOut, false, returnMatch(queue))
	})
	if errors.Is(err, driver.ErrPermission) {
		return fmt.Errorf("a Nack with a delay needs the permissions configure, write and read on %s*, and write on the queue: grant them, or use a delay of 0: %w", delayPrefix, err)
	}
	if err != nil {
		return fmt.Errorf("declare the delay levels: %w", err)
	}
	d.levels |= units
	d.exchanges = max(d.exchanges, count)
	d.ends, l.relayed = true, true
	return nil
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
// delayed Nack finds out. Each life asks: other connections make delays too.
func (c *Conn) restoreReturn(ctx context.Context, queue string) error {
	d := &c.delays
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	err = c.do(ctx, func(ch *channel) error {
		if err := ch.ExchangeDeclarePassive(exchangeIn, "headers", true, false, false, false, nil); err != nil {
			return err
		}
		err := bindReturn(ch, queue)
		if told := wrap(err); errors.Is(told, driver.ErrNotFound) || errors.Is(told, driver.ErrPermission) {
			return nil // it is about this queue, not about the vhost's delays
		}
		return err
	})
	switch {
	case err == nil:
		d.ends = true
	case errors.Is(err, driver.ErrNotFound):
		d.ends = false
	case !errors.Is(err, driver.ErrPermission):
		return err
	}
	return nil
}

// forgetDelay removes the relay of a queue that was deleted, unless the queue
// has been made anew meanwhile: then the relay serves it.
func (c *Conn) forgetDelay(ctx context.Context, queue string) error {
	relay := relayQueue(queue)
	err := c.do(ctx, func(ch *channel) error {
		_, err := ch.QueueDeclarePassive(relay, true, false, false, false, nil)
		if err == nil {
			_, err = ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if missing(err) {
				if err = ch.reopen(); err == nil {
					_, err = ch.QueueDelete(relay, false, false, false)
				}
			}
		}
		if missing(err) {
			return nil
		}
		return err
	})
	if errors.Is(err, driver.ErrPermission) {
		return nil // whoever may make relays removes it
	}
	return err
}

// declareEnds makes the exchanges at the levels' end and what takes the rest.
func declareEnds(ch *channel) error {
	if err := ch.ExchangeDeclare(goneName, "fanout", true, false, false, false, nil); err != nil {
		return err
	}
	args := amqp091.Table{argQueueType: typeQuorum, "x-message-ttl": goneTime.Milliseconds(), "x-max-length": int64(goneMost)}
	if _, err := ch.QueueDeclare(goneName, true, false, false, false, args); err != nil {
		return err
	}
	if err := ch.QueueBind(goneName, "", goneName, false, nil); err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(exchangeOut, "headers", true, false, false, false, amqp091.Table{argAlternate: goneName}); err != nil {
		return err
	}
	// No alternate: a relay keeps what does not find its queue.
	return ch.ExchangeDeclare(exchangeIn, "headers", true, false, false, false, nil)
}

// safeLetters are the arguments of a queue that hands everything on, confirmed,
// after ttl.
func safeLetters(exchange string, ttl time.Duration) amqp091.Table {
	return amqp091.Table{
		argQueueType:          typeQuorum,
		"x-message-ttl":       ttl.Milliseconds(),
		argDeadLetterExchange: exchange,
		argDeadLetterStrategy: atLeastOnce,
		argOverflow:           rejectPublish,
	}
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
	units := uint64((delay + delayUnit - 1) / delayUnit)
	var err error
	for try := range 2 {
		if err = s.c.ensureDelay(ctx, units, s.queue, in.life, try > 0); err != nil {
			return err
		}
		err = s.c.publishCopy(ctx, in, units)
		if !errors.Is(err, driver.ErrNotFound) && !errors.Is(err, driver.ErrUnroutable) {
			break
		}
		// Somebody deleted the levels since they were declared.
	}
	if err != nil {
		return fmt.Errorf("store the delayed copy: %w", err)
	}
	return s.settle(in, driver.Ack)
}

func (c *Conn) publishCopy(ctx context.Context, in *delivery, units uint64) error {
	m := in.sent
	h := make(driver.Header, len(m.Header)+8)
	for k, v := range m.Header {
		h[escape(k)] = v // its x-death goes into headerDeath, as with any message
	}
	for prefix, keep := range map[string]string{prefixFirst: headerFirst, prefixLast: headerLast} {
		if t := takeEnd(h, prefix); t != nil {
			h[keep] = t
		}
	}
	for k := range delayLevels {
		if units&(1<<k) != 0 {
			h[headerBit+strconv.Itoa(k)] = true
		}
	}
	h[headerQueue] = in.Queue
	h[headerExchange] = in.Exchange
	h[headerAttempts] = int64(in.Attempt)
	if m.UserID != "" {
		h[headerUser] = m.UserID // the broker takes only this connection's own
		m.UserID = ""
	}
	m.Header = h
	owner := make(awaited, 1)
	p := &driver.Publishing{Message: &m, ID: m.ID, Owner: owner}
	from := &publisher{out: c.out, own: true, exchange: levelExchange(bits.Len64(units) - 1)}
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
