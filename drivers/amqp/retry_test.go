package amqp

import (
	"fmt"
	"maps"
	"reflect"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func nackLater(t testing.TB, s driver.Subscriber, d *driver.Delivery, delay time.Duration) {
	t.Helper()
	if err := s.Settle(ctxOf(t), d, driver.Nack, delay); err != nil {
		t.Fatalf("Nack in %v: %v", delay, err)
	}
}

func TestDelayedNack(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}, {Name: "dead", Kind: routing.Topic}},
		Queues:    []routing.Queue{{Name: "q", DeadLetterExchange: "dead"}, {Name: "dlq"}, {Name: "other"}},
		Bindings: []routing.Binding{
			{Exchange: "x", Queue: "q", Key: "a.#"}, {Exchange: "x", Queue: "other", Key: "a.#"},
			{Exchange: "dead", Queue: "dlq", Key: "a.b"},
		},
	}))
	p := publisherOf(t, c, "x")
	sent := driver.Message{ID: "1", Key: "a.b", Body: []byte("b"), UserID: c.settings.user, Header: driver.Header{"h": int64(1), "x-death": []any{map[string]any{"queue": "old", "reason": "rejected", "count": int64(2)}}}}
	check(t, publish(t, p, sent))
	s := subscribe(t, c, "q", 10)
	d := receive(t, s)
	for attempt := 2; attempt <= 4; attempt++ {
		delay := time.Duration(attempt) * 70 * time.Millisecond
		start := time.Now()
		nackLater(t, s, d, delay)
		if took := time.Since(start); took > delay && attempt > 2 {
			t.Logf("the Nack itself took %v", took)
		}
		d = receive(t, s)
		took := time.Since(start)
		t.Logf("delay %v: back after %v", delay, took)
		if took < delay {
			t.Errorf("back after %v, asked for %v", took, delay)
		}
		if d.Attempt != attempt || d.Exchange != "x" || !reflect.DeepEqual(d.Message, sent) {
			t.Errorf("attempt %d: %+v", attempt, d)
		}
		settle(t, s, d, driver.Nack) // at once: counted on top
		d = receive(t, s)
		attempt++
		if d.Attempt != attempt {
			t.Errorf("attempt %d, want %d", d.Attempt, attempt)
		}
	}
	settle(t, s, d, driver.Reject)
	dead := subscribe(t, c, "dlq", 10)
	d = receive(t, dead)
	deaths, _ := d.Message.Header.List("x-death")
	if len(deaths) != 2 || d.Exchange != "dead" || d.Message.Key != "a.b" || d.Attempt != 1 {
		t.Fatalf("dead letter: %+v", d)
	}
	first := deaths[0].(map[string]any)
	if first["queue"] != "q" || first["reason"] != "rejected" || first["exchange"] != "x" || first["count"] != int64(1) {
		t.Errorf("x-death: %v", deaths)
	}
	for k, v := range d.Message.Header {
		if k != "h" && k != "x-death" {
			t.Logf("%s: %v", k, v)
		}
	}
	settle(t, dead, d, driver.Ack)

	// It came back to its own queue only.
	check(t, publish(t, p, driver.Message{ID: "2", Key: "a.c"}))
	o := subscribe(t, c, "other", 10)
	for _, id := range []string{"1", "2"} {
		if d := receive(t, o); d.Message.ID != id {
			t.Errorf("other got %s, want %s", d.Message.ID, id)
		}
	}
}

func TestMaxAttempts(t *testing.T) {
	c := open(t)
	managed := c.management
	for _, mode := range []string{"probed", "managed"} {
		for limit := 1; limit <= 3; limit++ {
			q, dlq := mode+string(rune('0'+limit)), mode+"dead"+string(rune('0'+limit))
			check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{
				{Name: q, MaxAttempts: limit, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: dlq}, {Name: dlq},
			}}))
			if c.management = managed; mode == "probed" {
				c.management = nil
			}
			k, err := c.kindOf(ctxOf(t), q)
			if want := (queueKind{kind: typeQuorum, limit: limit}); k != want || err != nil {
				t.Errorf("learned %+v, %v; want %+v", k, err, want)
			}
			check(t, publish(t, publisherOf(t, c, ""), driver.Message{ID: "m", Key: q}))
			s := subscribe(t, c, q, 5)
			for attempt := 1; attempt <= limit; attempt++ {
				d := receive(t, s)
				if d.Attempt != attempt {
					t.Fatalf("%s: attempt %d, want %d", q, d.Attempt, attempt)
				}
				if attempt%2 == 0 {
					nackLater(t, s, d, 10*time.Millisecond)
				} else {
					settle(t, s, d, driver.Nack)
				}
			}
			dead := subscribe(t, c, dlq, 5)
			d := receive(t, dead)
			deaths, _ := d.Message.Header.List("x-death")
			if len(deaths) != 1 || deaths[0].(map[string]any)["reason"] != "delivery_limit" || deaths[0].(map[string]any)["queue"] != q {
				t.Errorf("%s: dead letter %+v", q, d.Message.Header)
			}
			check(t, s.Close(ctxOf(t)))
			check(t, dead.Close(ctxOf(t)))
		}
	}
}

// TestMaxAttemptsAfterDeath: attempts in the queue where a message died do not
// count in the next one.
func TestMaxAttemptsAfterDeath(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{
		{Name: "a", MaxAttempts: 2, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "b"},
		{Name: "b", MaxAttempts: 3, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "c"}, {Name: "c"},
	}}))
	for _, reason := range []string{"delivery_limit", "rejected"} {
		sent := driver.Message{ID: reason, Key: "a", Body: []byte("b"), Header: driver.Header{"h": "v"}}
		check(t, publish(t, publisherOf(t, c, ""), sent))
		a, b, last := subscribe(t, c, "a", 1), subscribe(t, c, "b", 1), subscribe(t, c, "c", 1)
		settle(t, a, receive(t, a), driver.Nack)
		if d := receive(t, a); reason == "rejected" {
			settle(t, a, d, driver.Reject)
		} else {
			settle(t, a, d, driver.Nack)
		}
		for attempt := 1; attempt <= 3; attempt++ {
			d := receive(t, b)
			if d.Attempt != attempt || d.Message.ID != reason || d.Message.Header["h"] != "v" || d.Exchange != "" || d.Message.Key != "b" {
				t.Errorf("%s, attempt %d: %+v", reason, attempt, d)
			}
			settle(t, b, d, driver.Nack)
		}
		d := receive(t, last)
		deaths, _ := d.Message.Header.List(headerXDeath)
		if len(deaths) != 2 || d.Message.Header["x-first-death-queue"] != "a" || d.Message.Header["x-first-death-reason"] != reason {
			t.Fatalf("%s: %v", reason, d.Message.Header)
		}
		for i, want := range []string{"b delivery_limit 1", "a " + reason + " 1"} {
			death := deaths[i].(map[string]any)
			if got := fmt.Sprint(death["queue"], " ", death["reason"], " ", death["count"]); got != want {
				t.Errorf("%s: death %d is %s, want %s", reason, i, got, want)
			}
		}
		settle(t, last, d, driver.Ack)
		for _, s := range []driver.Subscriber{a, b, last} {
			check(t, s.Close(ctxOf(t)))
		}
	}
}

func TestLearnKind(t *testing.T) {
	c := openURL(t, testbroker.URL(t, "amqp"))
	c.management = nil
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{
		{Name: "classic", Type: typeClassic}, {Name: "transient", Transient: true},
		{Name: "priorities", MaxPriority: 5},
		{Name: "full", MaxAttempts: 7, DeadLetterExchange: "dlx'", DeadLetterKey: "it's", MaxLength: 5, MaxBytes: 500, Overflow: routing.RejectPublish, Expires: 100 * time.Second, TTL: 50 * time.Second, SingleActiveConsumer: true},
		{Name: "bounded", MaxLength: 5, Overflow: routing.RejectPublish, MaxPriority: 2, TTL: time.Second},
		{Name: "mine", Exclusive: true, TTL: time.Second, Transient: true}, {Name: "passing", AutoDelete: true, MaxBytes: 3},
	}}))
	check(t, c.do(ctxOf(t), func(ch *channel) error {
		_, err := ch.QueueDeclare("old", true, false, false, false, nil)
		return err
	}))
	for name, want := range map[string]queueKind{
		"classic": {kind: typeClassic}, "priorities": {kind: typeClassic}, "transient": {kind: typeClassic}, "old": {kind: typeClassic},
		"full": {kind: typeQuorum, limit: 7, refuses: true}, "bounded": {kind: typeClassic, refuses: true},
		"mine": {kind: typeClassic, temporary: true}, "passing": {kind: typeClassic, temporary: true},
	} {
		if k, err := c.kindOf(ctxOf(t), name); k != want || err != nil {
			t.Errorf("%s: %+v, %v; want %+v", name, k, err, want)
		}
	}
	if _, err := c.kindOf(ctxOf(t), "missing"); err == nil {
		t.Error("the kind of a missing queue was learned")
	}
	// The questions make nothing, even where the queue vanishes in between.
	check(t, c.do(ctxOf(t), func(ch *channel) error {
		for _, args := range []map[string]any{{argQueueType: typeQuorum, argDeliveryLimit: nonsense, argMaxPriority: nonsense}} {
			if _, err := ch.QueueDeclare("missing", true, false, false, false, args); err == nil {
				t.Errorf("%v made a queue", args)
			}
			check(t, ch.reopen())
		}
		return nil
	}))
}

// TestOwnHeaders: headers named like the driver's own are a message's like any
// others, and give it no user id, before a delay and after it.
func TestOwnHeaders(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	want := driver.Header{"polymq-user": "root", "polymq-delay-1": "x", "polymq-exchange": "y", "polymq-attempts": int64(9), "polymq-queue": "q", "x-delivery-count": int64(4)}
	foreign := amqp091.Table{"polymq-user": "root", "polymq-delay-1": "x", "polymq-exchange": "y", "x-delivery-count": int64(4)}
	s := subscribe(t, c, "q", 1)
	for _, want := range []driver.Header{want, driver.Header(foreign)} {
		if want["polymq-queue"] != nil {
			check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q", Header: maps.Clone(want)}))
		} else {
			check(t, c.do(ctxOf(t), func(ch *channel) error {
				return ch.Publish("", "q", true, false, amqp091.Publishing{Headers: foreign})
			}))
		}
		var d *driver.Delivery
		for attempt := 1; attempt <= 3; attempt++ {
			d = receive(t, s)
			if !reflect.DeepEqual(d.Message.Header, want) || d.Message.UserID != "" || d.Exchange != "" || d.Attempt != attempt {
				t.Errorf("attempt %d: %+v, want %v", attempt, d, want)
			}
			if attempt < 3 {
				nackLater(t, s, d, 10*time.Millisecond)
			}
		}
		settle(t, s, d, driver.Ack)
	}
}

// TestChangedDelivery: what comes back is what was delivered, whatever the
// handler has made of it.
func TestChangedDelivery(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	check(t, publish(t, publisherOf(t, c, ""), driver.Message{Key: "q", Body: []byte("packed"), ContentEncoding: "gzip", Header: driver.Header{"h": "v"}}))
	s := subscribe(t, c, "q", 1)
	d := receive(t, s)
	want := d.Message
	d.Message.Body, d.Message.ContentEncoding, d.Message.Header, d.Message.Key = []byte("unpacked"), "", nil, "k"
	nackLater(t, s, d, 10*time.Millisecond)
	if got := receive(t, s).Message; !reflect.DeepEqual(got, want) {
		t.Errorf("came back as %+v, was %+v", got, want)
	}
}
