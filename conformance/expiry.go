package conformance

import (
	"strconv"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var expiryRows = []row{
	{promise: 17, name: "expired-message", needs: []polymq.Feature{polymq.FeatureTTL}, run: expiredMessage},
	{promise: 17, name: "expired-queue", needs: []polymq.Feature{polymq.FeatureTTL}, run: expiredByQueue},
	{promise: 17, name: "expired-least", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter}, run: expiredByTheLeast},
	{promise: 17, name: "expired-at-the-head", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter, polymq.FeatureInspect}, run: expiredAtHead},
	{promise: 17, name: "expired-dead-letter", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter}, run: expiredDeadLetter},
	{promise: 17, name: "held-does-not-expire", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter}, run: heldDoesNotExpire},
	{promise: 17, name: "expired-given-back", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter}, run: expiredGivenBack},
	{promise: 17, name: "expired-cycle", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter}, run: expiredCycle},
	{promise: 17, name: "cycle-of-two", needs: []polymq.Feature{polymq.FeatureTTL, polymq.FeatureDeadLetter}, run: cycleOfTwo},
}

const (
	brief  = 100 * time.Millisecond // a time to live that is meant to end
	beyond = 3 * brief              // it has ended by then
)

// lasting is a message with a time to live.
func lasting(key, body string, ttl time.Duration) *polymq.Message {
	return &polymq.Message{Key: key, Body: []byte(body), TTL: ttl}
}

// toDead are the fields of a queue whose dead letters go to the queue "dead".
func toDead(q routing.Queue) routing.Queue {
	q.DeadLetterExchange, q.DeadLetterKey = routing.DefaultExchange, "dead"
	return q
}

func expiredMessage(e *env) {
	c := e.open()
	e.declare(c, "q")
	e.publish(c, "", lasting("q", "short", brief), lasting("q", "long", time.Hour), lasting("q", "short too", brief), msg("q", "for ever"))
	e.pass(beyond)
	ds := e.drain(c, "q")
	e.equalBodies("q", ds, []string{"long", "for ever"})
	if ds[0].TTL != time.Hour || ds[1].TTL != 0 {
		e.Errorf("delivered with the times to live %v and %v, want those that were published", ds[0].TTL, ds[1].TTL)
	}
}

func expiredByQueue(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", TTL: brief}, "beside")
	e.publish(c, "", append(numbered(5, "q", ""), msg("beside", "stays"))...)
	e.pass(beyond)
	e.nothing(c, e.subscriber(c, "q", 10))
	e.has(c, "beside", "stays")
}

func expiredByTheLeast(e *env) {
	c := e.open()
	e.declare(c, "dead", toDead(routing.Queue{Name: "of the message", TTL: time.Hour}), toDead(routing.Queue{Name: "of the queue", TTL: brief}))
	e.publish(c, "", lasting("of the message", "1", brief), lasting("of the queue", "2", time.Hour))
	s := e.subscriber(c, "dead", 5)
	for range 2 {
		d := e.receive(s)
		want := polymq.Death{Queue: "of the queue", Reason: "expired", Keys: []string{"of the queue"}, TTL: time.Hour}
		if string(d.Body) == "1" {
			want = polymq.Death{Queue: "of the message", Reason: "expired", Keys: []string{"of the message"}, TTL: brief}
		}
		e.died(d, want)
		e.ack(d)
	}
}

// expiredAtHead has a message expire behind one that lives: it is counted, and
// no dead letter, until what is before it has gone.
func expiredAtHead(e *env) {
	c := e.open()
	e.declare(c, "dead", toDead(routing.Queue{Name: "q"}))
	e.publish(c, "", msg("q", "lives"), lasting("q", "expires", brief))
	e.pass(beyond)
	e.ready(c, "q", 2)
	e.publish(c, "", msg("dead", "before it"))
	s := e.subscriber(c, "q", 1)
	e.ack(e.body(s, "lives"))
	dead := e.subscriber(c, "dead", 1)
	e.ack(e.body(dead, "before it"))
	e.ack(e.body(dead, "expires"))
	e.nothing(c, s)
}

func expiredDeadLetter(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, routing.Exchange{Name: "dlx", Kind: routing.Fanout}, "dead",
		routing.Queue{Name: "q", DeadLetterExchange: "dlx"}, routing.Queue{Name: "timed", TTL: brief, DeadLetterExchange: "dlx"},
		to("x", "q", "short.#"), to("x", "timed", "any"), to("dlx", "dead", ""))
	short := &polymq.Message{ID: "the id", Key: "short.one", Body: []byte("1"), TTL: brief, ContentType: "t/t", Header: polymq.Header{"mine": 1, "CC": []any{"short.two"}}}
	dead := e.subscriber(c, "dead", 1)
	e.publish(c, "x", short)
	d := e.body(dead, "1")
	e.died(d, polymq.Death{Queue: "q", Reason: "expired", Exchange: "x", Keys: []string{"short.one", "short.two"}, TTL: brief})
	e.firstDeath(d, "q", "expired", "x")
	if d.TTL != 0 || d.Exchange != "dlx" || !sameValue(d.Header["mine"], int64(1)) {
		e.Errorf("the dead letter has the time to live %v, exchange %q, headers %v", d.TTL, d.Exchange, d.Header)
	}
	bare := *short
	bare.TTL = 0
	e.sameMessage(d, &bare)
	if deaths := e.deaths(d); !sameValue(deaths[0]["original-expiration"], "100") {
		e.Errorf("x-death: original-expiration is %v, want the text 100", deaths[0]["original-expiration"])
	}
	e.ack(d)
	e.publish(c, "x", msg("any", "2"))
	d = e.body(dead, "2")
	e.died(d, polymq.Death{Queue: "timed", Reason: "expired", Exchange: "x", Keys: []string{"any"}})
	e.ack(d)
}

// receiveLasting publishes a message with a time to live, and receives it before
// that has ended; a sentinel is behind it. On a busy machine the message can have
// expired: then it is another one, which lasts for twice as long.
func (e *env) receiveLasting(c *polymq.Conn, s *polymq.Subscriber, body string) *polymq.Delivery {
	e.Helper()
	ttl := e.b.Patience / 5
	for try := range 5 {
		want := body + strconv.Itoa(try)
		e.publish(c, "", lasting(s.Queue(), want, ttl), msg(s.Queue(), "behind it"))
		d := e.receive(s)
		switch string(d.Body) {
		case want:
			if d.TTL != ttl {
				e.Fatalf("delivered with the time to live %v, want %v", d.TTL, ttl)
			}
			return d
		case "behind it":
			e.ack(d)
		default:
			e.Fatalf("received %.60q, want %.60q", d.Body, want)
		}
		ttl *= 2
	}
	e.Fatalf("a message that lasts for %v did not come in time", ttl/2)
	return nil
}

// heldDoesNotExpire has a subscriber hold a message for longer than it lasts.
func heldDoesNotExpire(e *env) {
	c := e.open()
	e.declare(c, "dead", toDead(routing.Queue{Name: "q"}))
	s := e.subscriber(c, "q", 1)
	d := e.receiveLasting(c, s, "held")
	e.pass(2 * d.TTL)
	e.ack(d)
	e.ack(e.body(s, "behind it"))
	e.nothing(c, s)
	for _, dead := range e.drain(c, "dead") {
		if string(dead.Body) == string(d.Body) {
			e.Errorf("%q expired while it was held", d.Body)
		}
	}
}

func expiredGivenBack(e *env) {
	c := e.open()
	e.declare(c, "dead", toDead(routing.Queue{Name: "q"}))
	s := e.subscriber(c, "q", 1)
	d := e.receiveLasting(c, s, "late")
	e.pass(d.TTL + brief)
	e.nack(d, 0)
	dead := e.theOne(e.subscriber(c, "dead", 5), string(d.Body))
	e.died(dead, polymq.Death{Queue: "q", Reason: "expired", Keys: []string{"q"}, TTL: d.TTL})
	e.ack(e.body(s, "behind it"))
	e.nothing(c, s)
}

// expiredCycle has a queue be its own dead-letter queue, which would go round
// for ever: what expires is gone, what was rejected comes back.
func expiredCycle(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "q"})
	e.publish(c, "", lasting("q", "expires", brief))
	e.pass(beyond)
	s := e.subscriber(c, "q", 1)
	e.nothing(c, s)
	e.publish(c, "", msg("q", "rejected"))
	e.reject(e.body(s, "rejected"))
	d := e.body(s, "rejected")
	e.died(d, polymq.Death{Queue: "q", Reason: "rejected", Keys: []string{"q"}})
	e.reject(d)
	d = e.body(s, "rejected")
	e.died(d, polymq.Death{Queue: "q", Reason: "rejected", Count: 2, Keys: []string{"q"}})
	e.ack(d)
}

// cycleOfTwo has a message expire in two queues one after the other, the
// second of which leads back to the first, and elsewhere.
func cycleOfTwo(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "back", Kind: routing.Fanout}, "out",
		routing.Queue{Name: "a", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "b"}, routing.Queue{Name: "b", TTL: brief, DeadLetterExchange: "back"},
		to("back", "a", ""), to("back", "out", ""))
	e.publish(c, "", lasting("a", "1", brief))
	out := e.subscriber(c, "out", 1)
	d := e.body(out, "1")
	e.died(d, polymq.Death{Queue: "b", Reason: "expired", Keys: []string{"b"}}, polymq.Death{Queue: "a", Reason: "expired", Keys: []string{"a"}, TTL: brief})
	e.firstDeath(d, "a", "expired", "")
	e.ack(d)
	e.nothing(c, e.subscriber(c, "a", 1))
}
