package conformance

import (
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var deadLetterRows = []row{
	{promise: 17, name: "rejected", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadRejected},
	{promise: 17, name: "dropped", run: droppedWithoutExchange},
	{promise: 17, name: "key", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadLetterKey},
	{promise: 17, name: "default-exchange", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadDefaultExchange},
	{promise: 17, name: "routed", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadRouted},
	{promise: 17, name: "again", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadAgain},
	{promise: 17, name: "exhausted", needs: []polymq.Feature{polymq.FeatureDeadLetter, polymq.FeatureMaxAttempts}, run: deadExhausted},
	{promise: 17, name: "exhausted-dropped", needs: []polymq.Feature{polymq.FeatureMaxAttempts}, run: droppedExhausted},
	{promise: 17, name: "best-effort", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadBestEffort},
	{promise: 17, name: "many", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadMany},
	{promise: 17, name: "nowhere-to-go", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: deadNowhere},
}

// deaths is the x-death header of a dead letter.
func (e *env) deaths(d *polymq.Delivery) []map[string]any {
	e.Helper()
	list, ok := d.Header["x-death"].([]any)
	if !ok {
		e.Fatalf("x-death is %T %v, want a list; headers: %v", d.Header["x-death"], d.Header["x-death"], d.Header)
	}
	var tables []map[string]any
	for _, v := range list {
		t, ok := asTable(v)
		if !ok {
			e.Fatalf("x-death holds a %T, want tables", v)
		}
		tables = append(tables, t)
	}
	return tables
}

// death compares one entry of x-death.
func (e *env) death(got map[string]any, queue, reason, exchange string, count int, keys ...any) {
	e.Helper()
	for name, want := range map[string]any{"queue": queue, "reason": reason, "exchange": exchange, "count": int64(count), "routing-keys": keys} {
		if !sameValue(got[name], want) {
			e.Errorf("x-death: %s is %T %v, want %T %v", name, got[name], got[name], want, want)
		}
	}
	when, ok := got["time"].(time.Time)
	if age := time.Since(when); !ok || age > time.Hour || age < -time.Hour {
		e.Errorf("x-death: time is %v, want about now", got["time"])
	}
}

func (e *env) firstDeath(d *polymq.Delivery, queue, reason, exchange string) {
	e.Helper()
	for name, want := range map[string]string{"x-first-death-queue": queue, "x-first-death-reason": reason, "x-first-death-exchange": exchange} {
		if got := d.Header[name]; got != want {
			e.Errorf("%s is %v, want %q", name, got, want)
		}
	}
}

func deadRejected(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, routing.Exchange{Name: "dlx", Kind: routing.Fanout}, "dead",
		routing.Queue{Name: "q", DeadLetterExchange: "dlx"}, to("x", "q", "k"), to("x", "q", "cc"), to("dlx", "dead", ""))
	m := &polymq.Message{ID: "the id", Key: "k", Body: []byte("body"), ContentType: "t/t", Header: polymq.Header{"mine": 1, "CC": []any{"cc"}, "BCC": []any{"bcc"}}}
	e.publish(c, "x", m)
	s := e.subscriber(c, "q", 1)
	e.reject(e.body(s, "body"))
	d := e.body(e.subscriber(c, "dead", 1), "body")
	e.sameMessage(d, m)
	if d.Exchange != "dlx" || d.Queue != "dead" {
		e.Errorf("the dead letter came from exchange %q, queue %q", d.Exchange, d.Queue)
	}
	if _, there := d.Header["BCC"]; there || !sameValue(d.Header["mine"], int64(1)) || !sameValue(d.Header["CC"], []any{"cc"}) {
		e.Errorf("the dead letter's headers are %v", d.Header)
	}
	if deaths := e.deaths(d); len(deaths) != 1 {
		e.Errorf("x-death has %d entries, want 1", len(deaths))
	} else {
		e.death(deaths[0], "q", "rejected", "x", 1, "k", "cc")
	}
	e.died(d, polymq.Death{Queue: "q", Reason: "rejected", Exchange: "x", Keys: []string{"k", "cc"}})
	e.firstDeath(d, "q", "rejected", "x")
	if c.Features().Has(polymq.FeatureAttempts) {
		e.attempt(d, 1)
	}
	e.ack(d)
	e.close(s)
	e.has(c, "q")
}

func droppedWithoutExchange(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, "q", "beside", to("x", "q", ""), to("x", "beside", ""))
	e.publish(c, "x", numbered(3, "", "")...)
	s := e.subscriber(c, "q", 1)
	for range 3 {
		e.reject(e.receive(s))
	}
	e.close(s)
	e.has(c, "q")
	e.has(c, "beside", "0", "1", "2")
}

func deadLetterKey(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "dlx", Kind: routing.Direct}, "dead", "wrong", routing.Queue{Name: "q", DeadLetterExchange: "dlx", DeadLetterKey: "letter"},
		to("dlx", "dead", "letter"), to("dlx", "wrong", "q"), to("dlx", "wrong", "cc"))
	e.publish(c, "", &polymq.Message{Key: "q", Body: []byte("1"), Header: polymq.Header{"CC": []any{"cc"}}})
	e.reject(e.body(e.subscriber(c, "q", 1), "1"))
	d := e.body(e.subscriber(c, "dead", 1), "1")
	if _, there := d.Header["CC"]; there || d.Key != "letter" {
		e.Errorf("the dead letter has key %q, want letter; headers %v, want no CC", d.Key, d.Header)
	}
	if deaths := e.deaths(d); len(deaths) == 1 {
		e.death(deaths[0], "q", "rejected", "", 1, "q", "cc")
	}
	e.has(c, "wrong")
}

func deadDefaultExchange(e *env) {
	c := e.open()
	e.declare(c, "dead", routing.Queue{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"})
	e.publish(c, "", msg("q", "1"))
	e.reject(e.body(e.subscriber(c, "q", 1), "1"))
	d := e.body(e.subscriber(c, "dead", 1), "1")
	if d.Exchange != "" || d.Key != "dead" {
		e.Errorf("the dead letter came from exchange %q with key %q", d.Exchange, d.Key)
	}
}

// deadRouted routes dead letters like any other message: by key, to several
// queues, by the alternate exchange.
func deadRouted(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Topic}, routing.Exchange{Name: "dlx", Kind: routing.Topic, Alternate: "alt"}, routing.Exchange{Name: "alt", Kind: routing.Fanout},
		"all", "paid", "rest", routing.Queue{Name: "q", DeadLetterExchange: "dlx"},
		to("x", "q", "#"), to("dlx", "all", "order.#"), to("dlx", "paid", "*.paid"), to("alt", "rest", ""))
	e.publish(c, "x", msg("order.paid", "1"), msg("order.sent", "2"), msg("other", "3"))
	s := e.subscriber(c, "q", 3)
	for range 3 {
		e.reject(e.receive(s))
	}
	for q, want := range map[string][]string{"all": {"1", "2"}, "paid": {"1"}, "rest": {"3"}} {
		s := e.subscriber(c, q, 5)
		var got []string
		for range want {
			d := e.receive(s)
			got = append(got, string(d.Body))
			e.ack(d)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			e.Errorf("dead letters in %q: %q, want %q", q, got, want)
		}
		e.close(s)
		e.has(c, q)
	}
}

// deadAgain sends a message round between two queues.
func deadAgain(e *env) {
	c := e.open()
	e.declare(c,
		routing.Queue{Name: "a", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "b"},
		routing.Queue{Name: "b", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "a"})
	e.publish(c, "", msg("a", "1"))
	a, b := e.subscriber(c, "a", 1), e.subscriber(c, "b", 1)
	e.reject(e.body(a, "1"))
	e.reject(e.body(b, "1"))
	d := e.body(a, "1")
	if deaths := e.deaths(d); len(deaths) != 2 {
		e.Errorf("x-death has %d entries, want 2: %v", len(deaths), deaths)
	} else {
		e.death(deaths[0], "b", "rejected", "", 1, "b")
		e.death(deaths[1], "a", "rejected", "", 1, "a")
	}
	e.reject(d)
	d = e.body(b, "1")
	if deaths := e.deaths(d); len(deaths) != 2 {
		e.Errorf("x-death has %d entries, want 2, one for each queue and reason: %v", len(deaths), deaths)
	} else {
		e.death(deaths[0], "a", "rejected", "", 2, "a")
		e.death(deaths[1], "b", "rejected", "", 1, "b")
	}
	e.died(d, polymq.Death{Queue: "a", Reason: "rejected", Count: 2, Keys: []string{"a"}}, polymq.Death{Queue: "b", Reason: "rejected", Keys: []string{"b"}})
	e.firstDeath(d, "a", "rejected", "")
	e.ack(d)
}

func deadExhausted(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "dlx", Kind: routing.Fanout}, "dead", routing.Queue{Name: "q", DeadLetterExchange: "dlx", MaxAttempts: 3}, to("dlx", "dead", ""))
	e.publish(c, "", msg("q", "hopeless"), msg("q", "fine"))
	s := e.subscriber(c, "q", 1)
	seen := 0
	for fine := false; seen < 3 || !fine; {
		d := e.receive(s)
		if string(d.Body) == "fine" {
			e.ack(d)
			fine = true
			continue
		}
		seen++
		e.attempt(d, seen)
		e.nack(d, 0)
	}
	d := e.body(e.subscriber(c, "dead", 1), "hopeless")
	if deaths := e.deaths(d); len(deaths) != 1 {
		e.Errorf("x-death has %d entries, want 1", len(deaths))
	} else {
		e.death(deaths[0], "q", "delivery_limit", "", 1, "q")
	}
	e.died(d, polymq.Death{Queue: "q", Reason: "delivery_limit", Keys: []string{"q"}})
	e.firstDeath(d, "q", "delivery_limit", "")
	e.ack(d)
	e.close(s)
	e.has(c, "q")
}

func droppedExhausted(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", MaxAttempts: 2})
	e.publish(c, "", msg("q", "hopeless"))
	s := e.subscriber(c, "q", 1)
	d := e.body(s, "hopeless")
	e.attempt(d, 1)
	e.nack(d, 0)
	e.attempt(e.body(s, "hopeless"), 2)
	e.close(s) // gives the second attempt back, which is the last
	e.has(c, "q")
}

// deadBestEffort asks for dead letters of a transient queue, which not every
// broker moves safely: it is refused unless the declaration accepts that.
func deadBestEffort(e *env) {
	c := e.open()
	e.declare(c, "dead")
	q := routing.Queue{Name: "q", Transient: true, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"}
	if err := c.Declare(e.ctx, topology(q)); err != nil {
		e.mustBe(err, "Declare of a transient queue with a dead-letter exchange", errors.ErrUnsupported)
		e.says(err, "Declare of a transient queue with a dead-letter exchange", "BestEffortDeadLetter")
		q.BestEffortDeadLetter = true
		e.declare(c, q)
	}
	e.publish(c, "", msg("q", "1"))
	e.reject(e.body(e.subscriber(c, "q", 1), "1"))
	e.ack(e.body(e.subscriber(c, "dead", 1), "1"))
}

func deadMany(e *env) {
	c := e.open()
	e.declare(c, "dead", routing.Queue{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dead"})
	const n = 200
	e.publish(c, "", numbered(n, "q", "")...)
	s := e.subscriber(c, "q", 50)
	for i := range n {
		d := e.receive(s)
		if i%2 == 0 {
			e.reject(d)
		} else {
			e.ack(d)
		}
	}
	dead := e.subscriber(c, "dead", 50)
	got := map[string]int{}
	for range n / 2 {
		d := e.receive(dead)
		got[string(d.Body)]++
		e.ack(d)
	}
	for i := range n {
		if want := (i + 1) % 2; got[strconv.Itoa(i)] != want {
			e.Errorf("message %d is there %d times, want %d", i, got[strconv.Itoa(i)], want)
		}
	}
}

// deadNowhere rejects messages while no queue takes their dead letters: they
// wait for one, and hold up nobody meanwhile.
func deadNowhere(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "dlx", Kind: routing.Fanout}, "dead", "found",
		routing.Queue{Name: "unbound", DeadLetterExchange: "dlx"}, routing.Queue{Name: "missing", DeadLetterExchange: "not yet"})
	var subs []*polymq.Subscriber
	for _, q := range []string{"unbound", "missing"} {
		e.publish(c, "", numbered(4, q, "")...)
		s := e.subscriber(c, q, 1)
		for range 3 {
			e.reject(e.receive(s))
		}
		e.ack(e.body(s, "3"))
		subs = append(subs, s)
	}
	e.must(c.Bind(e.ctx, to("dlx", "dead", "")), "Bind")
	e.declare(c, routing.Exchange{Name: "not yet", Kind: routing.Fanout}, to("not yet", "found", ""))
	for i, q := range []string{"dead", "found"} {
		s := e.subscriber(c, q, 1)
		got := map[string]bool{}
		for len(got) < 3 {
			// RabbitMQ looks for a route every three minutes.
			d := e.receiveWithin(s, 20*e.b.Patience)
			got[string(d.Body)] = true
			e.ack(d)
		}
		if got["3"] {
			e.Errorf("%q got the message that was acknowledged", q)
		}
		e.close(s)
		e.close(subs[i])
	}
	e.has(c, "unbound")
	e.has(c, "missing")
}
