package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/polymq/polymq"
)

const (
	// holding is how long some deliveries are held: longer than the lease.
	holding = lease + 2*time.Second
	// slowly is how long a delivery of the queue takes that is to be full.
	slowly = 40 * time.Millisecond
)

// consume settles what comes until ctx ends.
func (c *client) consume(ctx context.Context, conn *polymq.Conn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var queues sync.WaitGroup
	errs := make([]error, len(queuesOf[c.name[:2]]))
	for i, queue := range queuesOf[c.name[:2]] {
		queues.Go(func() {
			if errs[i] = c.take(ctx, conn, queue); errs[i] != nil {
				cancel()
			}
		})
	}
	queues.Wait()
	return errors.Join(errs...)
}

func (c *client) take(ctx context.Context, conn *polymq.Conn, queue string) error {
	sub := c.subscribe(ctx, conn, queue)
	if sub == nil {
		return nil
	}
	var held sync.WaitGroup
	defer held.Wait()
	for {
		d, err := sub.Receive(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("receive from %s: %w", queue, err)
		}
		if !bytes.Equal(d.Body, body(d.ID)) {
			return fmt.Errorf("the body of %s from %s is not what was published", d.ID, queue)
		}
		act := actOn(queue, d.ID, d.Attempt)
		c.ledger.note("d", queue, d.ID, d.Attempt, d.Redelivered, act)
		switch act {
		case actNack:
			c.settled(queue, d.ID, d.Nack(context.Background(), 0))
		case actHold:
			held.Go(func() {
				select {
				case <-time.After(holding):
				case <-ctx.Done():
				}
				c.ledger.note("s", queue, d.ID)
				c.settled(queue, d.ID, d.Ack(context.Background()))
			})
		default:
			c.settled(queue, d.ID, d.Ack(context.Background()))
		}
		if queue == small {
			time.Sleep(slowly)
		}
	}
}

// subscribe tries until it succeeds: a broker that takes no writes, as with a full
// disk, refuses new subscribers. It is nil when ctx ends.
func (c *client) subscribe(ctx context.Context, conn *polymq.Conn, queue string) *polymq.Subscriber {
	for ctx.Err() == nil {
		sub, err := conn.Subscriber(ctx, queue, &polymq.SubscriberOptions{Prefetch: 32})
		if err == nil {
			return sub
		}
		fmt.Fprintln(os.Stderr, err)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	return nil
}

func (c *client) settled(queue, id string, err error) {
	if err != nil {
		c.ledger.note("e", queue, id, err)
	}
}

// actOn says what is done with a delivery.
func actOn(queue, id string, attempt int) string {
	switch h := hash(id + queue); {
	case h%50 == 0 && attempt <= 1:
		return actNack
	case h%101 == 0:
		return actHold
	}
	return actAck
}
