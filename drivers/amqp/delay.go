package amqp

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"sync/atomic"
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
	dueQueue    = delayPrefix + "due"
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

// delaysAge is how long what was declared is taken to stand.
const delaysAge = time.Minute

// delays is what a connection knows to stand of it. What leads back to a queue
// is known by each life of a subscriber, since it goes with the queue.
type delays struct {
	// epoch counts what may have undone what stands: a connection that was lost,
	// with a broker that was killed and has forgotten it, or somebody's deletion.
	epoch atomic.Int64
	turn  chan struct{} // cap 1: held while declaring
	age   time.Duration // of an epoch at most, since other programs delete as well
	// The rest is as it was in one epoch, and of whoever has the turn.
	since     time.Time
	known     int64
	levels    uint64 // bit k: queue k
	exchanges int    // exchanges 0 to exchanges-1
	ends      bool   // what declareEnds makes
	due       bool   // what ensureDue makes
}

// forget has whatever is needed next declared anew.
func (d *delays) forget() { d.epoch.Add(1) }

// lock waits for the turn to declare; the caller ends it with the function.
func (d *delays) lock(ctx context.Context) (unlock func(), err error) {
	select {
	case d.turn <- struct{}{}:
		if time.Since(d.since) >= d.age {
			d.forget()
			d.since = time.Now()
		}
		if epoch := d.epoch.Load(); epoch != d.known {
			d.known, d.levels, d.exchanges, d.ends, d.due = epoch, 0, 0, false, false
		}
		return func() { <-d.turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ensureLevels declares what a delay of so many units passes, and its ends.
func (c *Conn) ensureLevels(ctx context.Context, units uint64) error {
	d := &c.delays
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	count := bits.Len64(units)
	if d.ends && d.levels&units == units && d.exchanges >= count {
		return nil
	}
	levels, exchanges, ends := d.levels, d.exchanges, d.ends
	err = c.do(ctx, func(ch *channel) error {
		if !ends {
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
			if units&^levels&(1<<k) == 0 {
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
		return nil
	})
	if err != nil {
		return delayError(err)
	}
	d.levels |= units
	d.exchanges = max(d.exchanges, count)
	d.ends = true
	return nil
}

// delayError says what a user needs who may not declare.
func delayError(err error) error {
	if errors.Is(err, driver.ErrPermission) {
		return fmt.Errorf("delays need the permissions configure, write and read on %s*, and a Nack's also write on its queue: grant them, or use a delay of 0: %w", delayPrefix, err)
	}
	return fmt.Errorf("declare the delay levels: %w", err)
}

// unitsOf is a delay in levels; never shorter.
func unitsOf(delay time.Duration) uint64 { return uint64((delay + delayUnit - 1) / delayUnit) }

// addLevels says in a header which levels to pass, and returns the exchange
// that leads there.
func addLevels(h driver.Header, units uint64) string {
	for k := range delayLevels {
		if units&(1<<k) != 0 {
			h[headerBit+strconv.Itoa(k)] = true
		}
	}
	return levelExchange(bits.Len64(units) - 1)
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
