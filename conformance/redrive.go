package conformance

import (
	"slices"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var redriveRows = []row{
	{promise: 17, name: "redrive", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: redrives},
	{promise: 17, name: "redrive-some", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: redrivesSome},
	{promise: 17, name: "redrive-to-nowhere", needs: []polymq.Feature{polymq.FeatureDeadLetter}, run: redrivesToNowhere},
}

// redrive moves Max messages, which are known to come; without a Max it moves
// what comes before a short time without any, which is for calls that find none.
func (e *env) redrive(c *polymq.Conn, queue string, opts polymq.RedriveOptions) (int, error) {
	if opts.Idle = e.b.Patience / 5; opts.Max > 0 {
		opts.Idle = e.patience()
	}
	return c.Redrive(e.ctx, queue, &opts)
}

// takeBodies receives n messages and returns their bodies, sorted.
func (e *env) takeBodies(c *polymq.Conn, queue string, n int) []string {
	e.Helper()
	s := e.subscriber(c, queue, n)
	defer e.close(s)
	var got []string
	for range n {
		d := e.receive(s)
		got = append(got, string(d.Body))
		e.ack(d)
	}
	slices.Sort(got)
	return got
}

// redrives moves dead letters back to the queues in which they died, and to no
// other, though the bindings lead elsewhere.
func redrives(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Direct}, routing.Exchange{Name: "dlx", Kind: routing.Fanout}, "dead", "beside",
		routing.Queue{Name: "a", DeadLetterExchange: "dlx", DeadLetterKey: "letter"}, routing.Queue{Name: "b", DeadLetterExchange: "dlx"},
		to("dlx", "dead", ""), to("x", "a", "k"), to("x", "b", "k"), to("x", "beside", "k"))
	e.publish(c, "x", &polymq.Message{ID: "the id", Key: "k", Body: []byte("1"), Header: polymq.Header{"CC": []any{"cc"}, "mine": 1}})
	e.publish(c, "", msg("a", "2"))
	for q, n := range map[string]int{"a": 2, "b": 1} {
		s := e.subscriber(c, q, n)
		for range n {
			e.reject(e.receive(s))
		}
		e.close(s)
	}
	e.has(c, "beside", "1")
	e.publish(c, "", msg("dead", "never died"))
	for _, want := range []int{3, 0} {
		if n, err := e.redrive(c, "dead", polymq.RedriveOptions{Max: want}); n != want || err != nil {
			e.Fatalf("Redrive moved %d messages, error %v, want %d", n, err, want)
		}
	}
	s := e.subscriber(c, "b", 1)
	d := e.body(s, "1")
	if d.Exchange != "x" || d.Key != "k" || d.ID != "the id" || !sameValue(d.Header["CC"], []any{"cc"}) || !sameValue(d.Header["mine"], int64(1)) {
		e.Errorf("moved back it came from exchange %q with key %q, ID %q, headers %v", d.Exchange, d.Key, d.ID, d.Header)
	}
	if c.Features().Has(polymq.FeatureAttempts) {
		e.attempt(d, 1)
	}
	e.died(d, polymq.Death{Queue: "b", Reason: "rejected", Exchange: "x", Keys: []string{"k", "cc"}})
	e.reject(d)
	e.close(s)
	d = e.theOne(e.subscriber(c, "dead", 5), "1")
	e.died(d, polymq.Death{Queue: "b", Reason: "rejected", Count: 2, Exchange: "x", Keys: []string{"k", "cc"}})
	e.ack(d)
	if got := e.takeBodies(c, "a", 2); !slices.Equal(got, []string{"1", "2"}) {
		e.Errorf("queue a has %q", got)
	}
	for _, q := range []string{"a", "b", "beside"} {
		e.has(c, q)
	}
}

// theOne receives until a message with this body comes.
func (e *env) theOne(s *polymq.Subscriber, want string) *polymq.Delivery {
	e.Helper()
	for {
		if d := e.receive(s); string(d.Body) == want {
			return d
		}
	}
}

func redrivesSome(e *env) {
	c := e.open()
	e.declare(c, "dead", toDead(routing.Queue{Name: "q"}))
	e.publish(c, "", numbered(20, "q", "")...)
	s := e.subscriber(c, "q", 20)
	for range 20 {
		e.reject(e.receive(s))
	}
	e.close(s)
	even := func(d *polymq.Delivery) bool { return d.Body[len(d.Body)-1]%2 == 0 }
	for _, want := range []int{4, 6, 0} { // the filter takes ten
		if n, err := e.redrive(c, "dead", polymq.RedriveOptions{Max: want, Filter: even}); n != want || err != nil {
			e.Fatalf("Redrive moved %d messages, error %v, want %d", n, err, want)
		}
	}
	var want [2][]string
	for i, m := range numbered(20, "", "") {
		want[i%2] = append(want[i%2], string(m.Body))
	}
	for i, q := range []string{"q", "dead"} {
		slices.Sort(want[i])
		if got := e.takeBodies(c, q, 10); !slices.Equal(got, want[i]) {
			e.Errorf("queue %q has %q, want %q", q, got, want[i])
		}
		e.has(c, q)
	}
}

// redrivesToNowhere has the queue be deleted: its dead letter stays.
func redrivesToNowhere(e *env) {
	c := e.open()
	e.declare(c, "dead", toDead(routing.Queue{Name: "q"}), toDead(routing.Queue{Name: "deleted"}))
	for _, q := range []string{"deleted", "q"} {
		e.publish(c, "", msg(q, "from "+q))
		s := e.subscriber(c, q, 1)
		e.reject(e.receive(s))
		e.close(s)
	}
	e.must(c.DeleteQueue(e.ctx, "deleted", nil), "DeleteQueue")
	// One call sees both, unless the machine is busy: more of them may be needed,
	// but one message is moved, and whoever finds the other tells about it.
	moved := 0
	e.eventually("Redrive has moved one message, and tells that the other's queue is gone", func() bool {
		n, err := e.redrive(c, "dead", polymq.RedriveOptions{})
		if err != nil {
			e.mustBe(err, "Redrive of a message whose queue is gone", polymq.ErrUnroutable)
		}
		moved += n
		return moved > 0 && err != nil
	})
	if moved != 1 {
		e.Errorf("Redrive moved %d messages, want 1", moved)
	}
	e.has(c, "q", "from q")
	e.has(c, "dead", "from deleted")
	_, err := c.Redrive(e.ctx, "no such queue", nil)
	e.mustBe(err, "Redrive of a queue that is not there", polymq.ErrNotFound)
}
