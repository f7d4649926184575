package amqp

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestNackedTTL: a delay does not free a message from its time to live, nor is
// it shortened by it.
func TestNackedTTL(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{
		{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dlq"}, {Name: "dlq"}, {Name: "other"},
	}}))
	p := publisherOf(t, c, "")
	const ttl, delay = 400 * time.Millisecond, 800 * time.Millisecond
	sent := driver.Message{ID: "m", Key: "q", TTL: ttl, Body: []byte("b"), Header: driver.Header{"h": "v"}}
	s := subscribe(t, c, "q", 1) // first: the message lasts for no longer than its time to live
	check(t, publish(t, p, sent))
	d := receive(t, s)
	start := time.Now()
	nackLater(t, s, d, delay)
	d = receive(t, s)
	if took := time.Since(start); took < delay || d.Attempt != 2 || !reflect.DeepEqual(d.Message, sent) {
		t.Errorf("after %v came %+v", took, d)
	}
	nackLater(t, s, d, delay)
	check(t, s.Close(ctxOf(t)))
	dead := receive(t, subscribe(t, c, "dlq", 1))
	deaths, _ := dead.Message.Header.List(headerXDeath)
	if len(deaths) != 1 || dead.Message.TTL != 0 || dead.Exchange != "" {
		t.Fatalf("dead letter %+v", dead)
	}
	death := deaths[0].(map[string]any)
	if death["reason"] != "expired" || death["queue"] != "q" || death["original-expiration"] != "400" || death["count"] != int64(1) {
		t.Errorf("death %v", death)
	}
	for k := range dead.Message.Header {
		if strings.HasPrefix(k, prefixOwn) {
			t.Errorf("header %s is left", k)
		}
	}
}

// TestLongDelay: more than the levels can hold is passed in several turns.
func TestLongDelay(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), plainQ))
	p := publisherOf(t, c, "").(*publisher)
	x := publishing(driver.Message{Key: "q", ID: "m", Delay: 3 * maxDelay})
	s := &scheduled{c: c, from: p, p: x, m: travelling(x.Message, ""), units: unitsOf(x.Message.Delay)}
	s.m.Header[headerDue] = true
	s.limit()
	if rest := s.m.Header[headerRest]; s.units != 1<<delayLevels-1 || rest != int64(2*(1<<delayLevels-1)) {
		t.Fatalf("%d units now, %v later", s.units, rest)
	}
	// As if most of it were over.
	s.units, s.m.Header[headerRest] = 3, int64(60)
	start := time.Now()
	c.schedule(s)
	check(t, wait(t, x))
	receive(t, subscribe(t, c, "q", 1))
	if took := time.Since(start); took < 630*time.Millisecond {
		t.Errorf("came after %v", took)
	}
}

// TestDelayedToQueue: a publisher to a queue delays; the queue is found whatever
// the bindings, also when it was made anew meanwhile, or later.
func TestDelayedToQueue(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"}, routing.Queue{Name: "sentinel"})
	to := func(queue string) driver.Publisher {
		p, err := c.Publisher(ctxOf(t), driver.PublisherConfig{Exchange: "amq.topic", Queue: queue})
		check(t, err)
		return p
	}
	p := to("q")
	if err := publish(t, to("missing"), driver.Message{Delay: time.Hour}); !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("a missing queue: %v", err)
	}
	arrives := func(id string) {
		t.Helper()
		s := subscribe(t, c, "q", 1)
		if d := receive(t, s); d.Message.ID != id || d.Message.Key != "k" || d.Exchange != "amq.topic" || d.Message.Header != nil {
			t.Errorf("got %+v", d)
		} else {
			settle(t, s, d, driver.Ack)
		}
		check(t, s.Close(ctxOf(t)))
	}
	check(t, publish(t, p, driver.Message{ID: "direct", Key: "k", Delay: 50 * time.Millisecond}))
	arrives("direct")
	// Deleted by other means than DeleteQueue, which takes what is under way.
	drop := func() (held int) {
		t.Helper()
		check(t, c.do(ctxOf(t), func(ch *channel) (err error) { held, err = ch.QueueDelete("q", false, false, false); return err }))
		return held
	}
	// underWay publishes what is due after the queue has been deleted: on a slow
	// machine it can have come there before, and ends with it.
	underWay := func(id string) {
		t.Helper()
		check(t, publish(t, p, driver.Message{ID: id, Key: "k", Delay: time.Second}))
		for drop() > 0 {
			declare(t, c, routing.Queue{Name: "q"})
			check(t, publish(t, p, driver.Message{ID: id, Key: "k", Delay: time.Second}))
		}
	}
	underWay("anew")
	declare(t, c, routing.Queue{Name: "q"})
	until(t, "it is there though nobody consumed", func() bool {
		n := 0
		check(t, c.do(ctxOf(t), func(ch *channel) error {
			q, err := ch.QueueDeclarePassive("q", true, false, false, false, nil)
			n = q.Messages
			return err
		}))
		return n == 1
	})
	arrives("anew")
	underWay("later")
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "sentinel", Delay: 1500 * time.Millisecond}))
	receive(t, subscribe(t, c, "sentinel", 1)) // the other is in the relay
	declare(t, c, routing.Queue{Name: "q"})
	arrives("later")
	drop()
	if err := publish(t, p, driver.Message{Delay: time.Hour}); !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("gone since: %v", err)
	}
}

// TestDelayedPriorities: of two messages in one level neither waits for the
// other, whatever their priorities, which they keep.
func TestDelayedPriorities(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	s := subscribe(t, c, "q", 10)
	const delay, later = 128 * delayUnit, time.Second
	low, high := driver.Message{Key: "q", ID: "low", Body: []byte("b"), Priority: 4}, driver.Message{Key: "q", ID: "high", Body: []byte("b"), Priority: 9}
	// Waiting for the other, the low one would come after it.
	arrive := func(start time.Time, attempt int) (ds [2]*driver.Delivery) {
		t.Helper()
		for i, want := range []driver.Message{low, high} {
			d := receive(t, s)
			took := time.Since(start) - time.Duration(i)*later
			if !reflect.DeepEqual(d.Message, want) || d.Attempt != attempt || took < delay {
				t.Errorf("after %v: %+v", took, d)
			}
			ds[i] = d
		}
		return ds
	}
	delayed := func(m driver.Message) driver.Message { m.Delay = delay; return m }
	check(t, publish(t, p, driver.Message{Key: "q", Delay: delay})) // makes the level
	settle(t, s, receive(t, s), driver.Ack)
	start := time.Now()
	check(t, publish(t, p, delayed(low)))
	time.Sleep(time.Until(start.Add(later)))
	check(t, publish(t, p, delayed(high)))
	ds := arrive(start, 1)
	start = time.Now()
	nackLater(t, s, ds[0], delay)
	time.Sleep(time.Until(start.Add(later)))
	nackLater(t, s, ds[1], delay)
	arrive(start, 2)
	low.TTL = time.Minute
	check(t, publish(t, p, low))
	start = time.Now()
	nackLater(t, s, receive(t, s), delay)
	if d := receive(t, s); !reflect.DeepEqual(d.Message, low) || time.Since(start) < delay {
		t.Errorf("with a time to live: %+v", d)
	}
	check(t, publish(t, p, driver.Message{Key: "nowhere", Priority: 9, Delay: delayUnit}))
	until(t, "it is unroutable", func() bool {
		_, err := c.kindOf(ctxOf(t), driver.UnroutableQueue)
		return err == nil
	})
	if d := receive(t, subscribe(t, c, driver.UnroutableQueue, 1)); d.Message.Priority != 9 || d.Message.Header != nil {
		t.Errorf("unroutable: %+v", d)
	}
}

// xWithQueues is a namespace with an exchange x and its queues.
func xWithQueues(t *testing.T) (*Conn, driver.Publisher) {
	t.Helper()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct}},
		Queues:    []routing.Queue{{Name: "early"}, {Name: "late"}, {Name: "cc"}, {Name: "bcc"}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "early", Key: "k"}, {Exchange: "x", Queue: "cc", Key: "cc"}, {Exchange: "x", Queue: "bcc", Key: "bcc"}},
	}))
	return c, publisherOf(t, c, "x")
}

// TestDelayedPublish: what is published with a delay arrives as it was given,
// not before, along the bindings that stand when it is due.
func TestDelayedPublish(t *testing.T) {
	c, p := xWithQueues(t)
	sent := driver.Message{
		ID: "m", Key: "k", Body: []byte("b"), ContentType: "t", ContentEncoding: "e", CorrelationID: "c", ReplyTo: "r", Type: "ty", AppID: "a",
		UserID: c.settings.user, Time: time.Unix(1700000000, 0).UTC(), Priority: 7, TTL: time.Minute, Transient: true,
		Header: driver.Header{
			"h": int64(1), "CC": []any{"cc"}, "polymq-queue": "mine", "x-delivery-count": int64(4),
			"x-death":             []any{map[string]any{"queue": "old", "reason": "expired", "count": int64(2), "exchange": "e", "routing-keys": []any{"k"}, "original-expiration": "5"}},
			"x-first-death-queue": "old", "x-first-death-reason": "expired", "x-first-death-exchange": "e",
			"x-last-death-queue": "old", "x-last-death-reason": "expired", "x-last-death-exchange": "e",
		},
	}
	delayed := sent
	delayed.Header = driver.Header{"BCC": []any{"bcc"}}
	for k, v := range sent.Header {
		delayed.Header[k] = v
	}
	for round, delay := range []time.Duration{700 * time.Millisecond, 1500 * time.Microsecond} {
		var start time.Time
		var stored time.Duration
		for bound := false; !bound; {
			delayed.Delay = delay
			start = time.Now()
			check(t, publish(t, p, delayed))
			stored = time.Since(start)
			if bound = true; round == 0 {
				check(t, c.Unbind(ctxOf(t), []routing.Binding{{Exchange: "x", Queue: "early", Key: "k"}}))
				check(t, c.Bind(ctxOf(t), []routing.Binding{{Exchange: "x", Queue: "late", Key: "k"}}))
				// It can be due before that on a busy machine: then elsewhere, with a longer delay.
				if bound = time.Since(start) < delay; !bound {
					c, p = xWithQueues(t)
					delay *= 2
				}
			}
		}
		for _, queue := range []string{"late", "cc", "bcc"} {
			s := subscribe(t, c, queue, 1)
			d := receive(t, s)
			if took := time.Since(start); took < delay {
				t.Errorf("%s: arrived after %v, asked for %v", queue, took, delay)
			} else {
				t.Logf("%s: asked for %v, stored after %v, arrived after %v", queue, delay, stored, took)
			}
			if d.Exchange != "x" || d.Attempt != 1 || !reflect.DeepEqual(d.Message, sent) {
				t.Errorf("%s: got %+v\nwant %+v", queue, d.Message, sent)
			}
			settle(t, s, d, driver.Ack)
			check(t, s.Close(ctxOf(t)))
		}
	}
	if n, err := c.Purge(ctxOf(t), "early"); n != 0 || err != nil {
		t.Errorf("%d messages took the binding of when they were published: %v", n, err)
	}
}
