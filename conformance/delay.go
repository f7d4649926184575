package conformance

import (
	"errors"
	"strings"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var delayRows = []row{
	{promise: 3, name: "delayed", needs: []polymq.Feature{polymq.FeatureDelay}, run: delayed},
	{promise: 3, name: "delayed-as-published", needs: []polymq.Feature{polymq.FeatureDelay}, run: delayedAsPublished},
	{promise: 3, name: "delayed-routing", needs: []polymq.Feature{polymq.FeatureDelay}, run: delayedRouting},
	{promise: 3, name: "delayed-unroutable", needs: []polymq.Feature{polymq.FeatureDelay}, run: delayedUnroutable},
	{promise: 3, name: "delayed-full-target", needs: []polymq.Feature{polymq.FeatureDelay, polymq.FeatureMaxLength}, run: delayedToFull},
	{promise: 3, name: "delayed-missing-target", needs: []polymq.Feature{polymq.FeatureDelay}, run: delayedToMissing},
	{promise: 4, name: "delayed", needs: []polymq.Feature{polymq.FeatureDelay}, run: delayedMissingExchange},
	{promise: 10, name: "delayed", needs: []polymq.Feature{polymq.FeatureDelay}, hooks: hookRestart, run: delayedSurvives},
	{promise: 17, name: "delayed-expires", needs: []polymq.Feature{polymq.FeatureDelay, polymq.FeatureTTL}, run: delayedExpires},
}

// after is a message with a delay.
func after(key, body string, delay time.Duration) *polymq.Message {
	return &polymq.Message{Key: key, Body: []byte(body), Delay: delay}
}

// awhile is a delay that others are compared with.
const awhile = 300 * time.Millisecond

// delayed publishes delays in another order than they end.
func delayed(e *env) {
	c := e.open()
	e.declare(c, "q")
	s := e.subscriber(c, "q", 10)
	start := time.Now()
	e.publish(c, "", &polymq.Message{Key: "q", Body: []byte("past"), At: start.Add(-time.Hour)})
	e.publish(c, "", after("q", "never", 24*time.Hour), after("q", "late", 4*awhile), msg("q", "at once"), after("q", "soon", awhile))
	for _, want := range []struct {
		body  string
		delay time.Duration
	}{{"past", 0}, {"at once", 0}, {"soon", awhile}, {"late", 4 * awhile}} {
		d := e.receiveWithin(s, 4*awhile+e.again())
		if took := time.Since(start); string(d.Body) != want.body || took < want.delay {
			e.Fatalf("received %q after %v, want %q after %v", d.Body, took, want.body, want.delay)
		}
		if d.Delay != 0 || !d.At.IsZero() || d.Redelivered {
			e.Errorf("delivered with the delay %v until %v, redelivered: %v", d.Delay, d.At, d.Redelivered)
		}
		if f := c.Features(); f.Has(polymq.FeatureAttempts) {
			e.attempt(d, 1)
		}
		e.ack(d)
	}
	at := time.Now().Add(awhile)
	e.publish(c, "", &polymq.Message{Key: "q", Body: []byte("at a time"), At: at})
	e.ack(e.receiveThe(s, "at a time"))
	if early := time.Until(at); early > 0 {
		e.Errorf("delivered %v before the message's time", early)
	}
	// What waits is not in the queue yet, and where it is is nobody's business.
	f := c.Features()
	if f.Has(polymq.FeatureInspect) {
		e.ready(c, "q", 0)
	}
	e.nothing(c, s)
	if f.Has(polymq.FeatureTopology) {
		t, err := c.Topology(e.ctx)
		e.must(err, "Topology")
		if len(t.Queues) != 1 || len(t.Exchanges) != 0 {
			e.Errorf("with a delayed message Topology is %+v, want one queue", t)
		}
	}
}

// receiveThe receives a message that may take some time.
func (e *env) receiveThe(s *polymq.Subscriber, want string) *polymq.Delivery {
	e.Helper()
	d := e.receiveWithin(s, e.again())
	if string(d.Body) != want {
		e.Fatalf("received %.60q, want %.60q", d.Body, want)
	}
	return d
}

// delayedAsPublished has all of a message come through a delay.
func delayedAsPublished(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Headers}, "q", "cc",
		routing.Binding{Exchange: "x", Queue: "q", Args: map[string]any{"kind": "mine"}}, to("amq.direct", "q", "k"), to("amq.direct", "cc", "by cc"), to("amq.direct", "q", "by bcc"))
	m := &polymq.Message{ID: "the id", Key: "k", Body: []byte("1"), Header: polymq.Header{"kind": "mine", "n": 7}, ContentType: "t/t", CorrelationID: "c", ReplyTo: "r", Type: "t",
		AppID: "a", Time: time.Unix(1700000000, 0).UTC(), Priority: 3, Delay: awhile}
	e.publish(c, "x", m)
	s := e.subscriber(c, "q", 1)
	d := e.receiveThe(s, "1")
	want := *m
	want.Delay = 0
	e.sameMessage(d, &want)
	if d.Exchange != "x" || d.Key != "k" || !sameValue(d.Header["n"], int64(7)) || len(d.Header) != 2 || d.Priority != 3 {
		e.Errorf("delivered from exchange %q with key %q, headers %v, priority %d", d.Exchange, d.Key, d.Header, d.Priority)
	}
	e.ack(d)
	e.publish(c, "amq.direct", &polymq.Message{Key: "none", Body: []byte("2"), Header: polymq.Header{"CC": []any{"by cc"}, "BCC": []any{"by bcc"}}, Delay: awhile})
	for _, q := range []string{"q", "cc"} {
		sub := s
		if q == "cc" {
			sub = e.subscriber(c, q, 1)
		}
		d := e.receiveThe(sub, "2")
		if _, there := d.Header["BCC"]; there || d.Key != "none" || !sameValue(d.Header["CC"], []any{"by cc"}) {
			e.Errorf("queue %q: key %q, headers %v", q, d.Key, d.Header)
		}
		e.ack(d)
	}
}

// delayedRouting changes the bindings while a message waits.
func delayedRouting(e *env) {
	c := e.open()
	var before, bound string
	e.beforehand(2*awhile, func(suffix string, delay time.Duration) time.Time {
		x := "x" + suffix
		before, bound = "before"+suffix, "bound"+suffix
		e.declare(c, routing.Exchange{Name: x, Kind: routing.Direct}, before, bound, to(x, before, "k"))
		start := time.Now()
		e.publish(c, x, after("k", "1", delay), after("later", "2", delay))
		e.must(c.Unbind(e.ctx, to(x, before, "k")), "Unbind")
		e.must(c.Bind(e.ctx, to(x, bound, "k"), to(x, bound, "later")), "Bind")
		return start
	})
	s := e.subscriber(c, bound, 2)
	got := map[string]bool{}
	for range 2 {
		d := e.receiveWithin(s, e.again())
		got[string(d.Body)] = true
		e.ack(d)
	}
	if !got["1"] || !got["2"] {
		e.Errorf("the queue that was bound meanwhile got %v", got)
	}
	e.has(c, before)
}

func delayedUnroutable(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, routing.Exchange{Name: "with", Kind: routing.Direct, Alternate: "alt"}, routing.Exchange{Name: "alt", Kind: routing.Fanout},
		"rest", "q", to("alt", "rest", ""), to("x", "q", "k"))
	e.publish(c, "with", after("nobody", "1", awhile))
	d := e.receiveThe(e.subscriber(c, "rest", 1), "1")
	if d.Exchange != "with" || d.Key != "nobody" {
		e.Errorf("by the alternate exchange it came from %q with key %q", d.Exchange, d.Key)
	}
	e.ack(d)
	// Neither binding nor alternate exchange: it is kept where it can be found.
	e.publish(c, "x", &polymq.Message{ID: "the id", Key: "nobody", Body: []byte("2"), Header: polymq.Header{"mine": 1}, Delay: awhile}, after("k", "3", awhile))
	e.ack(e.receiveThe(e.subscriber(c, "q", 1), "3"))
	var s *polymq.Subscriber
	e.eventuallyWithin(e.again(), polymq.UnroutableQueue+" is there", func() bool {
		var err error
		s, err = c.Subscriber(e.ctx, polymq.UnroutableQueue, nil)
		return err == nil
	})
	d = e.receiveThe(s, "2")
	if d.Exchange != "x" || d.Key != "nobody" || d.ID != "the id" || d.Delay != 0 || !sameValue(d.Header["mine"], int64(1)) {
		e.Errorf("the unroutable message came from exchange %q with key %q, ID %q, delay %v, headers %v", d.Exchange, d.Key, d.ID, d.Delay, d.Header)
	}
	e.ack(d)
}

// delayedToFull has one target refuse: it holds up nobody, and gets its message
// when there is room.
func delayedToFull(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, routing.Queue{Name: "full", MaxLength: 1, Overflow: routing.RejectPublish}, "q", to("x", "full", "full"), to("x", "q", "k"))
	e.publish(c, "x", msg("full", "in the way"))
	for range 5 {
		e.publish(c, "x", after("full", "waits", awhile), after("k", "1", 2*awhile))
	}
	e.publish(c, "", after("q", "by another way", 2*awhile))
	q := e.subscriber(c, "q", 10)
	for range 6 {
		e.ack(e.receiveWithin(q, e.again()))
	}
	s := e.subscriber(c, "full", 1)
	e.ack(e.body(s, "in the way"))
	for range 5 {
		// Tried again after growing pauses.
		d := e.receiveWithin(s, 10*e.b.Patience)
		if string(d.Body) != "waits" {
			e.Fatalf("received %q, want what was refused", d.Body)
		}
		e.ack(d)
	}
}

// delayedToMissing has an exchange and a queue vanish while messages wait for
// them.
func delayedToMissing(e *env) {
	c := e.open()
	var other string
	var want [2]string
	e.beforehand(5*awhile, func(suffix string, due time.Duration) time.Time {
		x, q := "x"+suffix, "q"+suffix
		other, want = "other"+suffix, [2]string{"of the vanished exchange " + x, "of the vanished queue " + q}
		e.declare(c, routing.Exchange{Name: x, Kind: routing.Fanout}, q, other, to(x, q, ""))
		start := time.Now()
		e.publish(c, x, after("k", want[0], due))
		e.publish(c, "", after(q, want[1], due), after(other, "1", due+awhile))
		e.must(c.DeleteExchange(e.ctx, x, nil), "DeleteExchange")
		e.must(c.DeleteQueue(e.ctx, q, nil), "DeleteQueue")
		return start
	})
	e.ack(e.receiveThe(e.subscriber(c, other, 1), "1"))
	var s *polymq.Subscriber
	e.eventuallyWithin(e.again(), polymq.UnroutableQueue+" is there", func() bool {
		var err error
		s, err = c.Subscriber(e.ctx, polymq.UnroutableQueue, nil)
		return err == nil
	})
	got := map[string]bool{}
	for !got[want[0]] || !got[want[1]] {
		d := e.receiveWithin(s, e.again())
		got[string(d.Body)] = true
		e.ack(d)
		if !strings.HasPrefix(string(d.Body), "of the vanished ") {
			e.Fatalf("%s has %q", polymq.UnroutableQueue, d.Body)
		}
	}
}

func delayedMissingExchange(e *env) {
	c := e.open()
	e.mustBe(e.try(c, "missing", after("", "1", time.Hour)), "a delayed Publish to a missing exchange", polymq.ErrNotFound)
	err := e.try(c, "", &polymq.Message{Key: "q", Delay: -time.Second})
	e.mustBe(err, "Publish with a negative delay", polymq.ErrInvalid)
	err = e.try(c, "", &polymq.Message{Key: "q", Delay: time.Second, At: time.Now()})
	if !errors.Is(err, polymq.ErrInvalid) {
		e.Errorf("Publish with a delay and a time: got %v, want ErrInvalid", err)
	}
}

// delayedSurvives restarts the broker while messages wait.
func delayedSurvives(e *env) {
	url, restart := e.b.Restart(e.TB)
	c := e.openAt(url)
	e.declare(c, "q")
	start := time.Now()
	delay := e.b.Patience / 2
	e.publish(c, "", after("q", "1", delay), after("q", "2", delay+awhile))
	restart()
	c = e.openAt(url)
	s := e.subscriber(c, "q", 5)
	for got := 0; got < 2; {
		d := e.receiveWithin(s, delay+2*e.again()+c.Features().Lease)
		if took := time.Since(start); took < delay {
			e.Errorf("%q came after %v, want no earlier than %v", d.Body, took, delay)
		}
		if !d.Redelivered || string(d.Body) == []string{"1", "2"}[got] {
			got++
		}
		if err := d.Ack(e.short()); err != nil && !is(err, polymq.ErrLost) {
			e.Errorf("Ack: %v", err)
		}
	}
}

// delayedExpires counts the time to live from when the message is routed.
func delayedExpires(e *env) {
	c := e.open()
	e.declare(c, "q", "expires")
	e.publish(c, "", &polymq.Message{Key: "expires", Body: []byte("2"), TTL: brief, Delay: brief}, after("expires", "3", brief))
	s := e.subscriber(c, "q", 1)
	for ttl := e.b.Patience / 5; ; ttl *= 2 {
		e.publish(c, "", &polymq.Message{Key: "q", Body: []byte(ttl.String()), TTL: ttl, Delay: 2 * ttl}, after("q", "behind it", 2*ttl+awhile))
		d := e.receiveWithin(s, 2*ttl+e.again())
		e.ack(d)
		if body := string(d.Body); body != "behind it" {
			if d.TTL.String() != body {
				e.Errorf("delivered with the time to live %v, want %s", d.TTL, body)
			}
			break
		}
		// On a busy machine it can have expired between when it was routed and
		// when it was to be delivered; not again and again.
		if ttl > e.b.Patience {
			e.Fatalf("what lasts for %v once it is routed has not come", ttl)
		}
	}
	s = e.subscriber(c, "expires", 1)
	e.ack(e.receiveThe(s, "3"))
	e.nothing(c, s)
}
