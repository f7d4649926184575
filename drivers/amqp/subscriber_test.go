package amqp

import (
	"context"
	"errors"

	"math/rand/v2"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestSubscriberAbandoned ends the ctx of Subscriber at any moment: no consumer
// is left that takes messages for nobody.
func TestSubscriberAbandoned(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(500+rand.IntN(8000))*time.Microsecond)
				if s, err := c.Subscriber(ctx, driver.SubscriberConfig{Queue: "q", Prefetch: 10}); err == nil {
					check(t, s.Close(ctxOf(t)))
				}
				cancel()
			}
		})
	}
	wg.Wait()
	until(t, "no consumer is left behind", func() bool {
		consumers := -1
		check(t, c.do(ctxOf(t), func(ch *channel) error {
			q, err := ch.QueueDeclarePassive("q", true, false, false, false, nil)
			consumers = q.Consumers
			return err
		}))
		return consumers == 0
	})
}

// TestCloseOfSilentBroker closes a subscriber and a connection under which the
// broker answers nothing, with far more time than they need.
func TestCloseOfSilentBroker(t *testing.T) {
	t.Parallel()
	link := testbroker.Proxy(t, testbroker.URL(t, "amqp"))
	c := openURL(t, link.URL()+"&heartbeat=10m")
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	one, two := subscribe(t, c, "q", 1), subscribe(t, c, "q", 1)
	link.Stall(true)
	begun := time.Now()
	check(t, one.Close(ctxOf(t)))
	if took := time.Since(begun); took > 2*answerTime {
		t.Errorf("Subscriber.Close took %v", took)
	}
	link.Stall(false)
	check(t, c.Health(ctxOf(t)))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q", ID: "goes on"}))
	receive(t, two)
	link.Stall(true)
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Second) // no step takes more than answerTime
	defer cancel()
	if err := c.Close(ctx); err != nil {
		t.Errorf("Conn.Close: %v", err)
	}
}

// TestCancelKeepsAcks ends a consumer whose channel lives on: acknowledgements
// that wait for others are sent before the channel is closed.
func TestCancelKeepsAcks(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	p := publisherOf(t, c, "")
	s := subscribe(t, c, "q", 100).(*subscriber)
	var ds []*driver.Delivery
	for i := range 3 {
		check(t, publish(t, p, driver.Message{ID: strconv.Itoa(i), Key: "q"}))
		ds = append(ds, receive(t, s))
	}
	s.mu.Lock()
	l := s.life
	for _, d := range ds[1:] { // as Settle does, without the timer
		in := d.Tag.(*delivery)
		delete(l.held, in.tag)
		l.acks.ack(in.tag)
	}
	s.mu.Unlock()
	check(t, l.ch.Cancel(consumerTag, false))
	check(t, publish(t, p, driver.Message{ID: "sentinel", Key: "q"}))
	got := map[string]bool{receive(t, s).Message.ID: true, receive(t, s).Message.ID: true}
	if !got["0"] || !got["sentinel"] {
		t.Errorf("came again: %v, want 0 and the sentinel", got)
	}
}

// TestQueueMadeAnewWithoutLimit: what one connection declared, another may have
// replaced.
func TestQueueMadeAnewWithoutLimit(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	a, b := openURL(t, url), openURL(t, url)
	check(t, a.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 2}}}))
	check(t, b.DeleteQueue(ctxOf(t), "q", driver.DeleteOptions{}))
	check(t, b.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	check(t, publish(t, publisherOf(t, a, ""), driver.Message{Key: "q"}))
	s := subscribe(t, a, "q", 1).(*subscriber)
	for attempt := 1; attempt <= 4; attempt++ {
		d := receive(t, s)
		if d.Attempt != attempt {
			t.Errorf("attempt %d, want %d", d.Attempt, attempt)
		}
		settle(t, s, d, driver.Nack)
	}
	// A limit that the broker does not have ends in a delivery all the same.
	d := receive(t, s)
	s.mu.Lock()
	s.life.kind.limit = 2
	s.mu.Unlock()
	settle(t, s, d, driver.Nack)
	receive(t, s)
}

// TestPublishedCount: a header x-delivery-count that somebody published is no
// count of the broker's, and arrives.
func TestPublishedCount(t *testing.T) {
	c := open(t)
	for _, q := range []routing.Queue{{Name: "limited", MaxAttempts: 1}, {Name: "three", MaxAttempts: 3}, {Name: "classic", Type: typeClassic}} {
		check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{q}}))
		header := driver.Header{"x-delivery-count": int64(7), "x-acquired-count": "mine"}
		check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: q.Name, Header: header}))
		s := subscribe(t, c, q.Name, 1)
		for try := range 2 {
			d := receive(t, s)
			want := try + 1
			if q.Type == typeClassic {
				want = 0
			}
			if d.Attempt != want || d.Message.Header["x-delivery-count"] != int64(7) || d.Message.Header["x-acquired-count"] != "mine" || len(d.Message.Header) != 2 {
				t.Errorf("%s: attempt %d, want %d: %v", q.Name, d.Attempt, want, d.Message.Header)
			}
			if q.MaxAttempts == 1 {
				break
			}
			settle(t, s, d, driver.Nack)
		}
	}
}

// TestDeletionIsHeard: a queue declared anew right after its deletion does not
// deliver to a consumer of the old one.
func TestDeletionIsHeard(t *testing.T) {
	url := testbroker.URL(t, "amqp")
	a, b := openURL(t, url), openURL(t, url)
	check(t, a.Declare(ctxOf(t), plainQ))
	s := subscribe(t, a, "q", 10)
	p := publisherOf(t, b, "")
	check(t, publish(t, p, driver.Message{Key: "q"}))
	settle(t, s, receive(t, s), driver.Ack)
	check(t, b.DeleteQueue(ctxOf(t), "q", driver.DeleteOptions{}))
	check(t, b.Declare(ctxOf(t), plainQ))
	check(t, publish(t, p, driver.Message{Key: "q", ID: "new"}))
	if _, err := s.Receive(ctxOf(t), make([]*driver.Delivery, 1)); err == nil {
		return // the subscriber has gone on
	} else if !errors.Is(err, driver.ErrNotFound) {
		t.Fatalf("Receive: %v", err)
	}
	if d := receive(t, subscribe(t, b, "q", 10)); d.Message.ID != "new" {
		t.Errorf("got %+v", d)
	}
}

// TestPrefetchBeyondAMQP: AMQP has 16 bits for it, of which 65537 would leave 1, and 65536
// no limit at all.
func TestPrefetchBeyondAMQP(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"})
	s := subscribe(t, c, "q", 1<<16+1)
	p := publisherOf(t, c, "")
	for range 2 {
		check(t, publish(t, p, driver.Message{Key: "q"}))
	}
	held := []*driver.Delivery{receive(t, s), receive(t, s)}
	for _, d := range held {
		settle(t, s, d, driver.Ack)
	}
}
