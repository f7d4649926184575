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
// from there through exchangeIn to the queue itself: a queue that is full or
// refuses holds up its own relay only. What finds its queue deleted is dropped
// as the queue's other messages were.
//
// All of it is durable, and moves by the broker's confirmed dead-lettering.
const (
	delayPrefix = "polymq.delay."
	exchangeOut = delayPrefix + "out"
	exchangeIn  = delayPrefix + "in"
	goneName    = delayPrefix + "gone" // an exchange and a queue that drops all
	headerBit   = "polymq-delay-"

	delayUnit   = 10 * time.Millisecond
	delayLevels = 28
	maxDelay    = (1<<delayLevels - 1) * delayUnit // a month
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

// delays is what a connection knows to stand of it.
type delays struct {
	turn      chan struct{}   // cap 1: held while declaring
	levels    uint64          // bit k: queue k
	exchanges int             // exchanges 0 to exchanges-1
	targets   map[string]bool // queues with a relay
}

func newDelays() delays {
	return delays{turn: make(chan struct{}, 1), targets: map[string]bool{}}
}

// ensure declares what a delay of so many units to the queue needs.
func (c *Conn) ensureDelay(ctx context.Context, units uint64, queue string, anew bool) error {
	d := &c.delays
	select {
	case d.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-d.turn }()
	if anew {
		d.levels, d.exchanges = 0, 0
		clear(d.targets)
	}
	count := bits.Len64(units)
	if d.levels&units == units && d.exchanges >= count && d.targets[queue] {
		return nil
	}
	have, exchanges, target := d.levels, d.exchanges, d.targets[queue]
	err := c.do(ctx, func(ch *channel) error {
		if have == 0 {
			if err := declareEnds(ch); err != nil {
				return err
			}
		}
		for k := exchanges; k < count; k++ {
			args := amqp091.Table{argAlternate: levelExchange(k - 1)}
			if err := ch.ExchangeDeclare(levelExchange(k), "headers", true, false, false, false, args); err != nil {
				return err
			}
		}
		for k := range count {
			if units&^have&(1<<k) == 0 {
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
		if target {
			return nil
		}
		match := amqp091.Table{"x-match": "all", headerQueue: queue}
		if err := ch.QueueBind(queue, "", exchangeIn, false, match); err != nil {
			return err
		}
		relay := relayQueue(queue)
		if _, err := ch.QueueDeclare(relay, true, false, false, false, safeLetters(exchangeIn, 0)); err != nil {
			return err
		}
		return ch.QueueBind(relay, "", exchangeOut, false, match)
	})
	if err != nil {
		return fmt.Errorf("declare the delay levels: %w", err)
	}
	d.levels |= units
	d.exchanges = max(d.exchanges, count)
	d.targets[queue] = true
	return nil
}

// forgetDelay removes the relay of a queue that was deleted.
func (c *Conn) forgetDelay(ctx context.Context, queue string) error {
	err := c.do(ctx, func(ch *channel) error {
		_, err := ch.QueueDelete(relayQueue(queue), false, false, false)
		if missing(err) {
			return nil
		}
		return err
	})
	if errors.Is(err, driver.ErrPermission) {
		return nil // then it was never made either
	}
	if err != nil {
		return err
	}
	select {
	case c.delays.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	delete(c.delays.targets, queue)
	<-c.delays.turn
	return nil
}

// declareEnds makes the exchanges at the levels' end and what takes the rest.
func declareEnds(ch *channel) error {
	if err := ch.ExchangeDeclare(goneName, "fanout", true, false, false, false, nil); err != nil {
		return err
	}
	args := amqp091.Table{argQueueType: typeClassic, "x-message-ttl": int64(0), "x-max-length": int64(1)}
	if _, err := ch.QueueDeclare(goneName, true, false, false, false, args); err != nil {
		return err
	}
	if err := ch.QueueBind(goneName, "", goneName, false, nil); err != nil {
		return err
	}
	for _, name := range [...]string{exchangeOut, exchangeIn} {
		if err := ch.ExchangeDeclare(name, "headers", true, false, false, false, amqp091.Table{argAlternate: goneName}); err != nil {
			return err
		}
	}
	return nil
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
		if err = s.c.ensureDelay(ctx, units, s.queue, try > 0); err != nil {
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
