package conformance

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var settleRows = []row{
	{promise: 15, name: "nacks", needs: []polymq.Feature{polymq.FeatureAttempts}, run: attemptsOfNacks},
	{promise: 15, name: "closes", needs: []polymq.Feature{polymq.FeatureAttempts}, run: attemptsOfCloses},
	{promise: 15, name: "only-prefetched", needs: []polymq.Feature{polymq.FeatureAttempts}, run: attemptsOfPrefetched},
	{promise: 15, name: "redelivered", run: redeliveredFlag},

	{promise: 16, name: "own-queue", run: nackToOwnQueue},
	{promise: 16, name: "as-it-was", run: nackedAsItWas},
	{promise: 16, name: "delay", needs: []polymq.Feature{polymq.FeatureDelayedNack}, run: nackDelay},
	{promise: 16, name: "negative-delay", run: nackNegative},
	{promise: 16, name: "unbound-since", run: nackUnbound},

	{promise: 20, name: "every-pair", run: settledTwice},
	{promise: 20, name: "concurrent", run: settledConcurrently},
}

func (e *env) attempt(d *polymq.Delivery, want int) {
	e.Helper()
	if d.Attempt != want {
		e.Fatalf("message %.40q: Attempt is %d, want %d", d.Body, d.Attempt, want)
	}
}

func attemptsOfNacks(e *env) {
	c, other := e.open(), e.open()
	counts := e.attempt
	if c.Features().CountsReturned {
		// A subscriber may be given its nacked message once more before it
		// closes, and that counts too.
		counts = func(d *polymq.Delivery, least int) {
			e.Helper()
			if d.Attempt < least {
				e.Fatalf("message %.40q: Attempt is %d, want at least %d", d.Body, d.Attempt, least)
			}
		}
	}
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	for i := range 6 {
		// From one subscriber to the next, on two connections.
		s := e.subscriber([]*polymq.Conn{c, other}[i%2], "q", 1)
		d := e.body(s, "1")
		if !c.Features().CountsReturned || d.Attempt < i+1 {
			// Nacked, it may come to the same subscriber again before that closes.
			e.attempt(d, i+1)
		}
		if i == 5 {
			e.ack(d)
		} else {
			e.nack(d, 0)
		}
		e.close(s)
	}
	e.publish(c, "", msg("q", "2"))
	s := e.subscriber(c, "q", 1)
	for i := range 4 {
		d := e.body(s, "2")
		e.attempt(d, i+1)
		e.nack(d, 0)
	}
	e.close(s)
	e.publish(c, "", msg("q", "3"))
	for _, d := range e.receiveN(e.subscriber(c, "q", 5), 2) {
		counts(d, map[string]int{"2": 5, "3": 1}[string(d.Body)])
	}
}

func attemptsOfCloses(e *env) {
	c, other := e.open(), e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	for i := range 3 {
		s := e.subscriber(c, "q", 1)
		e.attempt(e.body(s, "1"), i+1)
		e.close(s)
	}
	e.attempt(e.body(e.subscriber(other, "q", 1), "1"), 4)
	e.close(other)
	e.attempt(e.body(e.subscriber(c, "q", 1), "1"), 5)
}

func attemptsOfPrefetched(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(5, "q", "")...)
	for range 3 {
		s := e.subscriber(c, "q", 5)
		d := e.receive(s)
		e.nack(d, 0)
		e.close(s)
	}
	// Whatever the order: three attempts were made in all.
	sum := 0
	for _, d := range e.receiveN(e.subscriber(c, "q", 5), 5) {
		sum += d.Attempt - 1
	}
	if f := c.Features(); sum != 3 && !f.CountsReturned {
		e.Errorf("three deliveries ended in Nack, the rest was only prefetched; %d are counted", sum)
	} else if sum < 3 {
		e.Errorf("three deliveries ended in Nack, %d are counted", sum)
	}
}

func redeliveredFlag(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	s := e.subscriber(c, "q", 1)
	d := e.body(s, "1")
	if d.Redelivered {
		e.Errorf("the first delivery says Redelivered")
	}
	e.nack(d, 0)
	if d = e.body(s, "1"); !d.Redelivered {
		e.Errorf("after Nack the delivery does not say Redelivered")
	}
	e.close(s)
	if d = e.body(e.subscriber(c, "q", 1), "1"); !d.Redelivered {
		e.Errorf("after Close the delivery does not say Redelivered")
	}
	if f := c.Features(); !f.Has(polymq.FeatureAttempts) && d.Attempt != 0 {
		e.Errorf("the backend does not count attempts, and Attempt is %d, want 0", d.Attempt)
	}
	e.ack(d)
}

// nackToOwnQueue nacks one of two copies.
func nackToOwnQueue(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "p", "q", to("x", "p", ""), to("x", "q", ""))
	e.publish(c, "x", numbered(3, "k", "")...)
	s := e.subscriber(c, "p", 1)
	for range 4 {
		e.nack(e.receive(s), 0)
	}
	for range 3 {
		e.ack(e.receive(s))
	}
	e.close(s)
	e.has(c, "q", "0", "1", "2")
	e.has(c, "p")
}

func nackedAsItWas(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, "q", to("x", "q", "#"))
	m := &polymq.Message{
		ID: "the id", Key: "a.key", Body: []byte{0, 1, 2}, ContentType: "t/t", CorrelationID: "c", Priority: 3, Time: time.Unix(1700000000, 0),
		Header: polymq.Header{"n": 1, "s": "text", "CC": []any{"b.key"}},
	}
	e.publish(c, "x", m)
	s := e.subscriber(c, "q", 1)
	first := e.receive(s)
	e.nack(first, 0)
	for range 2 {
		d := e.receive(s)
		e.sameMessage(d, m)
		if d.Exchange != "x" || d.Queue != "q" || !d.Time.Equal(m.Time) {
			e.Errorf("came again from exchange %q, queue %q, with time %v", d.Exchange, d.Queue, d.Time)
		}
		for _, name := range []string{"n", "s", "CC"} {
			if !sameValue(d.Header[name], first.Header[name]) {
				e.Errorf("header %q came again as %v, first %v", name, d.Header[name], first.Header[name])
			}
		}
		e.nack(d, 0)
	}
}

// nackDelay delays one of three messages: the others pass it.
func nackDelay(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "late"), msg("q", "1"), msg("q", "2"))
	s := e.subscriber(c, "q", 5)
	delay := e.b.Patience / 4
	start := time.Now()
	e.nack(e.body(s, "late"), delay)
	e.ack(e.body(s, "1"), e.body(s, "2"))
	d := e.body(s, "late")
	if took := time.Since(start); took < delay {
		e.Errorf("nacked with a delay of %v, the message came again after %v", delay, took)
	}
	if c.Features().Has(polymq.FeatureAttempts) {
		e.attempt(d, 2)
	}
	// The delay holds though the subscriber that asked for it has gone.
	other := e.open()
	start = time.Now()
	e.nack(d, delay)
	e.close(s)
	s = e.subscriber(other, "q", 5)
	d = e.body(s, "late")
	if took := time.Since(start); took < delay {
		e.Errorf("nacked with a delay of %v, the message came to another subscriber after %v", delay, took)
	}
	e.ack(d)
	e.close(s)
	e.has(c, "q")
}

func nackNegative(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", msg("q", "1"))
	s := e.subscriber(c, "q", 1)
	d := e.body(s, "1")
	if err := d.Nack(e.ctx, -time.Second); err == nil {
		e.Fatalf("Nack with a negative delay returned nil")
	}
	e.ack(d) // the refusal was no settlement
	e.close(s)
	e.has(c, "q")
}

// nackUnbound nacks after the way into the queue is gone.
func nackUnbound(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", to("x", "q", ""))
	e.publish(c, "x", msg("", "1"))
	s := e.subscriber(c, "q", 1)
	d := e.body(s, "1")
	e.must(c.Unbind(e.ctx, to("x", "q", "")), "Unbind")
	e.must(c.DeleteExchange(e.ctx, "x", nil), "DeleteExchange")
	e.nack(d, 0)
	e.ack(e.body(s, "1"))
}

func settledTwice(e *env) {
	c := e.open()
	e.declare(c, "q")
	ways := []struct {
		name string
		do   func(*polymq.Delivery) error
	}{
		{"Ack", func(d *polymq.Delivery) error { return d.Ack(e.ctx) }},
		{"Nack", func(d *polymq.Delivery) error { return d.Nack(e.ctx, 0) }},
		{"Reject", func(d *polymq.Delivery) error { return d.Reject(e.ctx) }},
	}
	s := e.subscriber(c, "q", 2)
	for _, first := range ways {
		for _, second := range ways {
			e.publish(c, "", msg("q", "1"))
			d := e.body(s, "1")
			e.must(first.do(d), "%s", first.name)
			e.mustBe(second.do(d), fmt.Sprintf("%s after %s", second.name, first.name), polymq.ErrSettled)
			if first.name == "Nack" {
				e.ack(e.body(s, "1")) // once more, and not twice
			}
			e.publish(c, "", msg("q", "unharmed"))
			e.ack(e.body(s, "unharmed"))
		}
	}
	e.close(s)
	e.has(c, "q")
}

func settledConcurrently(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", numbered(20, "q", "")...)
	s := e.subscriber(c, "q", 4)
	for range 20 {
		d := e.receive(s)
		var won atomic.Int32
		var wg sync.WaitGroup
		for i := range 6 {
			wg.Go(func() {
				var err error
				if i%2 == 0 {
					err = d.Ack(e.ctx)
				} else {
					err = d.Reject(e.ctx)
				}
				switch {
				case err == nil:
					won.Add(1)
				case !is(err, polymq.ErrSettled):
					e.Errorf("a settlement beside others: got %v, want nil or ErrSettled", err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			e.Fatalf("%d of 6 settlements returned nil, want 1", won.Load())
		}
	}
	e.close(s)
	e.has(c, "q")
}
