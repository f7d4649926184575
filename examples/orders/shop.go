package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

const maxAttempts = 3

// shop is the program's part of the broker. The names are new in each run, so
// that two runs do not meet.
type shop struct {
	conn   *polymq.Conn
	orders *polymq.Publisher
	out    io.Writer

	exchange, payments, failed, shipping string
}

func open(ctx context.Context, url string, out io.Writer) (*shop, error) {
	conn, err := polymq.Open(ctx, url, nil)
	if err != nil {
		return nil, err
	}
	p := "orders." + strings.ToLower(rand.Text()[:8])
	s := &shop{conn: conn, out: out, exchange: p, payments: p + ".payments", failed: p + ".failed", shipping: p + ".shipping"}
	err = conn.Declare(ctx, routing.Topology{
		Exchanges: []routing.Exchange{{Name: s.exchange, Kind: routing.Topic}},
		Queues: []routing.Queue{
			{
				Name:        s.payments,
				MaxAttempts: maxAttempts,
				// The default exchange leads to the queue that the key names.
				DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: s.failed,
			},
			{Name: s.failed},
			{Name: s.shipping},
		},
		Bindings: []routing.Binding{
			{Exchange: s.exchange, Queue: s.payments, Key: "order.placed"},
			{Exchange: s.exchange, Queue: s.shipping, Key: "order.paid"},
		},
	})
	if err == nil {
		s.orders, err = conn.Publisher(ctx, s.exchange, nil)
	}
	if err != nil {
		return nil, errors.Join(err, s.close(ctx))
	}
	return s, nil
}

// place publishes orders; it returns once the broker has them.
func (s *shop) place(ctx context.Context, orders ...string) error {
	var msgs []*polymq.Message
	for _, o := range orders {
		msgs = append(msgs, &polymq.Message{ID: "placed-" + o, Key: "order.placed", Body: []byte(o)})
	}
	return s.orders.Publish(ctx, msgs...)
}

// An end is what became of an order.
type end struct{ order, text string }

// takePayments charges orders until ctx ends, and tells the end of each.
func (s *shop) takePayments(ctx context.Context, b *bank, ends chan<- end) error {
	sub, err := s.conn.Subscriber(ctx, s.payments, &polymq.SubscriberOptions{
		Backoff: polymq.Exponential(50*time.Millisecond, time.Second), // seconds and minutes, in real life
	})
	if err != nil {
		return err
	}
	return sub.Run(ctx, func(ctx context.Context, d *polymq.Delivery) error {
		order := string(d.Body)
		err := b.charge(order)
		switch {
		case errors.Is(err, errDeclined):
			ends <- end{order, "declined, given up at once"}
			return polymq.Permanent(err) // no further attempt: a dead letter
		case err != nil && d.Attempt == maxAttempts:
			ends <- end{order, fmt.Sprintf("given up after attempt %d: %v", d.Attempt, err)}
			return err // the queue makes it a dead letter
		case err != nil:
			return err // it comes again after a while, and the others go on
		}
		// Published before the delivery is acknowledged: a crash between the two
		// publishes it twice, never not at all. The ID tells the copies.
		err = s.orders.Publish(ctx, &polymq.Message{ID: "paid-" + order, Key: "order.paid", Body: d.Body})
		if err == nil {
			ends <- end{order, fmt.Sprintf("paid in attempt %d", d.Attempt)}
		}
		return err
	})
}

// await waits for the ends of n orders and prints them. Which comes first says
// nothing, since one that fails waits while the others go on: so it sorts them.
func (s *shop) await(ctx context.Context, ends <-chan end, n int) error {
	var got []end
	for range n {
		select {
		case e := <-ends:
			got = append(got, e)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	slices.SortFunc(got, func(a, b end) int { return strings.Compare(a.order, b.order) })
	for _, e := range got {
		fmt.Fprintln(s.out, e.order, e.text)
	}
	return nil
}

// ship takes n paid orders, in the order in which they were paid.
func (s *shop) ship(ctx context.Context, n int) (shipped int, err error) {
	err = s.take(ctx, s.shipping, n, func(*polymq.Delivery) { shipped++ })
	return shipped, err
}

// giveUp takes n dead letters off, for somebody to call the customer.
func (s *shop) giveUp(ctx context.Context, n int) (lost int, err error) {
	err = s.take(ctx, s.failed, n, func(d *polymq.Delivery) {
		death := d.Deaths()[0]
		fmt.Fprintf(s.out, "%s needs a person: %s in %s\n", d.Body, death.Reason, strings.TrimPrefix(death.Queue, s.exchange+"."))
		lost++
	})
	return lost, err
}

func (s *shop) take(ctx context.Context, queue string, n int, f func(*polymq.Delivery)) (err error) {
	sub, err := s.conn.Subscriber(ctx, queue, nil)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, sub.Close(context.WithoutCancel(ctx))) }()
	for range n {
		d, err := sub.Receive(ctx)
		if err != nil {
			return err
		}
		f(d)
		if err := d.Ack(ctx); err != nil {
			return err
		}
	}
	return nil
}

// close deletes what open declared; it must also work when ctx has ended.
func (s *shop) close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	var errs []error
	for _, q := range []string{s.payments, s.failed, s.shipping} {
		errs = append(errs, s.conn.DeleteQueue(ctx, q, nil))
	}
	errs = append(errs, s.conn.DeleteExchange(ctx, s.exchange, nil), s.conn.Close(ctx))
	return errors.Join(errs...)
}
