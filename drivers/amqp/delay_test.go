package amqp

import (
	"context"
	"errors"
	"io"
	"math/bits"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

var plainQ = routing.Topology{Queues: []routing.Queue{{Name: "q"}}}

// TestDelayInQueueMadeAnew: another connection deletes and declares a queue to
// which this one has delayed messages before.
func TestDelayInQueueMadeAnew(t *testing.T) {
	t.Parallel()
	url := testbroker.URL(t, "amqp")
	a, b := openURL(t, url), openURL(t, url)
	check(t, a.Declare(ctxOf(t), plainQ))
	p := publisherOf(t, a, "")
	for round := range 2 {
		s := subscribe(t, a, "q", 10)
		check(t, publish(t, p, driver.Message{Key: "q", ID: "m"}))
		nackLater(t, s, receive(t, s), 20*time.Millisecond)
		d := receive(t, s)
		if d.Attempt != 2 {
			t.Errorf("round %d: %+v", round, d)
		}
		settle(t, s, d, driver.Ack)
		check(t, s.Close(ctxOf(t)))
		check(t, b.DeleteQueue(ctxOf(t), "q", driver.DeleteOptions{}))
		check(t, b.Declare(ctxOf(t), plainQ))
	}
}

// TestDelayMadeByAnother: neither a first look before there were delays nor a
// queue that is missing keeps a connection from restoring the way back.
func TestDelayMadeByAnother(t *testing.T) {
	t.Parallel()
	var a *Conn
	// What has come back before its queue is deleted ends with it: on a busy
	// machine again, on another namespace, with a longer delay.
	for delay, late := time.Second, true; late; delay *= 2 {
		url := testbroker.URL(t, "amqp")
		var b *Conn
		a, b = openURL(t, url), openURL(t, url)
		check(t, a.Declare(ctxOf(t), plainQ))
		check(t, a.restoreReturn(ctxOf(t), "q"))
		s := subscribe(t, b, "q", 1)
		check(t, publish(t, publisherOf(t, b, ""), driver.Message{Key: "q", ID: "m"}))
		d := receive(t, s)
		start := time.Now()
		nackLater(t, s, d, delay)
		check(t, s.Close(ctxOf(t)))
		check(t, a.do(ctxOf(t), func(ch *channel) error {
			_, err := ch.QueueDelete("q", false, false, false)
			return err
		}))
		late = time.Since(start) >= delay
	}
	check(t, a.restoreReturn(ctxOf(t), "q")) // while it is missing
	check(t, a.Declare(ctxOf(t), plainQ))
	s := subscribe(t, a, "q", 1)
	d := receive(t, s)
	if d.Message.ID != "m" || d.Attempt != 2 {
		t.Errorf("got %+v", d)
	}
	settle(t, s, d, driver.Ack)
}

// TestDelayOutlivesQueue: copies become due while their queue is missing.
func TestDelayOutlivesQueue(t *testing.T) {
	t.Parallel()
	c := open(t)
	declare(t, c, routing.Queue{Name: "sentinel"})
	p := publisherOf(t, c, "")
	behind := subscribe(t, c, "sentinel", 1)
	delayOne := func(s driver.Subscriber, queue, id string, delay time.Duration) {
		check(t, publish(t, p, driver.Message{Key: queue, ID: id}))
		nackLater(t, s, receive(t, s), delay)
	}
	ready := func(queue string) int {
		n := 0
		err := c.do(ctxOf(t), func(ch *channel) error {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			n = q.Messages
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const shortest = 500 * time.Millisecond
	// underWay has a queue be deleted before what it delayed is due: on a busy
	// machine another one, with a longer delay, if that took too long.
	underWay := func(id string, drop func(queue string) error) (queue string, delay time.Duration) {
		for delay = shortest; ; delay *= 2 {
			queue = id + delay.String()
			declare(t, c, routing.Queue{Name: queue})
			s := subscribe(t, c, queue, 10)
			start := time.Now()
			delayOne(s, queue, id, delay)
			check(t, drop(queue))
			if time.Since(start) < delay {
				return queue, delay
			}
		}
	}
	// Deleted without this library, it leaves its relay, which keeps them.
	q, delay := underWay("kept", func(queue string) error {
		return c.do(ctxOf(t), func(ch *channel) error {
			_, err := ch.QueueDelete(queue, false, false, false)
			return err
		})
	})
	delayOne(behind, "sentinel", "behind it", delay)
	receive(t, behind)
	declare(t, c, routing.Queue{Name: q})
	s := subscribe(t, c, q, 10)
	if d := receive(t, s); d.Message.ID != "kept" || d.Attempt != 2 {
		t.Errorf("got %+v", d)
	} else {
		settle(t, s, d, driver.Ack)
	}
	// DeleteQueue deletes the way back; what was under way can still be had.
	_, delay = underWay("gone", func(queue string) error { return c.DeleteQueue(ctxOf(t), queue, driver.DeleteOptions{}) })
	until(t, "the copy is among what has nowhere to go", func() bool { return ready(goneName) > 0 })
	if n := ready(goneName); delay == shortest && n != 1 { // of more tries there may be more copies
		t.Errorf("it is there %d times", n)
	}
}

// manage asks the broker's management API for a change.
func manage(t *testing.T, broker *url.URL, path, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(ctxOf(t), http.MethodPut, broker.Query().Get("management")+path, strings.NewReader(body))
	check(t, err)
	password, _ := broker.User.Password()
	req.SetBasicAuth(broker.User.Username(), password)
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	check(t, err)
	text, _ := io.ReadAll(res.Body)
	res.Body.Close()
	if res.StatusCode >= 300 {
		t.Fatalf("PUT %s: %s: %s", path, res.Status, text)
	}
}

// TestDelayWithoutPermission: whoever may consume only hears what is missing
// for a delay, and can settle the message in another way.
func TestDelayWithoutPermission(t *testing.T) {
	u, err := url.Parse(testbroker.URL(t, "amqp"))
	check(t, err)
	c := openURL(t, u.String())
	check(t, c.Declare(ctxOf(t), plainQ))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q"}))
	name := "limited-" + u.Path[1:]
	manage(t, u, "/api/users/"+name, `{"password":"secret","tags":""}`)
	manage(t, u, "/api/permissions/"+u.Path[1:]+"/"+name, `{"configure":"","write":".*","read":".*"}`)
	u.User, u.RawQuery = url.UserPassword(name, "secret"), ""
	limited := openURL(t, u.String())
	s := subscribe(t, limited, "q", 1)
	for range 2 {
		d := receive(t, s)
		err := s.Settle(ctxOf(t), d, driver.Nack, time.Second)
		if !errors.Is(err, driver.ErrPermission) || !strings.Contains(err.Error(), "configure, write and read on polymq.delay.*") {
			t.Errorf("Nack with a delay: %v", err)
		}
		check(t, s.Extend(ctxOf(t), d))
		settle(t, s, d, driver.Nack)
	}
}

// TestSubscribeWhileDeclaring: a subscriber begins though somebody waits for the
// broker to declare delay levels.
func TestSubscribeWhileDeclaring(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), plainQ))
	unlock, err := c.delays.lock(ctxOf(t))
	check(t, err)
	defer unlock()
	ctx, cancel := context.WithTimeout(ctxOf(t), 10*time.Second)
	defer cancel()
	s, err := c.Subscriber(ctx, driver.SubscriberConfig{Queue: "q", Prefetch: 1})
	check(t, err)
	check(t, s.Close(ctx))
}

// TestDelayPartsDeleted: somebody tidies up and deletes queues that delays need, empty as
// they are. In the next epoch they are there again.
func TestDelayPartsDeleted(t *testing.T) {
	const delay = 640 * time.Millisecond // one level's
	for what, queue := range map[string]string{
		"level": levelQueue(bits.Len64(unitsOf(delay)) - 1),
		"relay": relayQueue("q"),
	} {
		t.Run(what, func(t *testing.T) {
			c := open(t)
			check(t, c.Declare(ctxOf(t), plainQ))
			s, p := subscribe(t, c, "q", 1), publisherOf(t, c, "")
			check(t, publish(t, p, driver.Message{Key: "q", ID: "m"}))
			check(t, s.Settle(ctxOf(t), receive(t, s), driver.Nack, delay))
			d := receive(t, s)
			check(t, c.do(ctxOf(t), func(ch *channel) error {
				_, err := ch.QueueDelete(queue, false, false, false)
				return err
			}))
			unlock, err := c.delays.lock(ctxOf(t))
			check(t, err)
			c.delays.age = 0 // the epoch is over
			unlock()
			began := time.Now()
			check(t, s.Settle(ctxOf(t), d, driver.Nack, delay))
			if receive(t, s); time.Since(began) < delay {
				t.Errorf("came after %v in place of %v", time.Since(began), delay)
			}
		})
	}
}
