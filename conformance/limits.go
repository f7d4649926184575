package conformance

import (
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var limitRows = []row{
	{promise: 2, name: "full", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: fullRefuses},
	{promise: 2, name: "full-durable", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: fullDurable},
	{promise: 2, name: "full-bytes", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: fullOfBytes},
	{promise: 2, name: "full-but-held", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: heldIsNotFull},
	{promise: 2, name: "refused-again", needs: []polymq.Feature{polymq.FeatureMaxLength, polymq.FeatureDedup}, run: refusedAgain},
	{promise: 2, name: "same-id-by-rules", needs: []polymq.Feature{polymq.FeatureDedup}, run: sameIDByRules},

	{promise: 10, name: "held-beyond-limit", needs: []polymq.Feature{polymq.FeatureMaxLength}, hooks: hookRestart, run: heldSurvives},

	{promise: 17, name: "overflow-dropped", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: overflowDropped},
	{promise: 17, name: "overflow-dead-letter", needs: []polymq.Feature{polymq.FeatureMaxLength, polymq.FeatureDeadLetter}, run: overflowDeadLetter},
	{promise: 17, name: "overflow-bytes", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: overflowBytes},
	{promise: 17, name: "overflow-but-held", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: heldDoesNotOverflow},
	{promise: 17, name: "overflow-given-back", needs: []polymq.Feature{polymq.FeatureMaxLength}, run: givenBackOverflows},
}

// refusing is a queue that refuses exactly what is beyond its limits.
func refusing(c *polymq.Conn, q routing.Queue) routing.Queue {
	q.Name, q.Overflow, q.Transient = "q", routing.RejectPublish, c.Features().RefusesLate
	return q
}

// late is how many messages a durable queue takes beyond its limit from a
// publisher that waits.
func late(c *polymq.Conn) int {
	if c.Features().RefusesLate {
		return 1
	}
	return 0
}

// fullRefuses fills one of the queues of a fan-out.
func fullRefuses(e *env) {
	c := e.open()
	e.declare(c, routing.Exchange{Name: "x", Kind: routing.Fanout}, refusing(c, routing.Queue{MaxLength: 2}), "beside",
		to("x", "q", ""), to("x", "beside", ""))
	failed := e.failures(e.publisher(c, "x").Publish(e.short(), numbered(5, "", "")...))
	for i := range 5 {
		f, there := failed[i]
		if there != (i >= 2) {
			e.Errorf("message %d of five to a queue with room for two: got %v", i, f.Err)
		} else if there {
			e.mustBe(f.Err, "a message to a full queue", polymq.ErrRejected)
		}
	}
	e.mustBe(e.try(c, "", msg("q", "late")), "Publish to a full queue", polymq.ErrRejected)
	s := e.subscriber(c, "q", 1)
	e.ack(e.body(s, "0"))
	e.ack(e.body(s, "1"))
	e.close(s)
	e.publish(c, "", msg("q", "next"))
	e.holds(c, "q", "next")
	e.has(c, "beside", "0", "1", "2", "3", "4")
}

// fullDurable has a publisher wait for each message, until the queue refuses.
func fullDurable(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", MaxLength: 5, Overflow: routing.RejectPublish})
	stored := numbered(5+late(c), "q", "")
	for _, m := range stored {
		e.publish(c, "", m)
	}
	for range 2 {
		e.mustBe(e.try(c, "", msg("q", "refused")), "Publish to a full queue", polymq.ErrRejected)
	}
	s := e.subscriber(c, "q", 1)
	for _, m := range stored {
		e.ack(e.body(s, string(m.Body)))
	}
	e.close(s)
	e.eventually("the empty queue takes messages", func() bool { return e.try(c, "", msg("q", "next")) == nil })
	e.holds(c, "q", "next")
}

func fullOfBytes(e *env) {
	c := e.open()
	e.declare(c, refusing(c, routing.Queue{MaxBytes: 100}))
	body := func(n int) *polymq.Message {
		m := msg("q", string(make([]byte, n)))
		m.Header = polymq.Header{"no": string(make([]byte, 200))} // not counted
		return m
	}
	e.publish(c, "", body(60), body(30))
	e.mustBe(e.try(c, "", body(11)), "Publish beyond the queue's bytes", polymq.ErrRejected)
	e.publish(c, "", body(10))
	e.mustBe(e.try(c, "", body(1)), "Publish to a queue that is full of bytes", polymq.ErrRejected)
	s := e.subscriber(c, "q", 3)
	for _, want := range []int{60, 30, 10} {
		d := e.receive(s)
		if len(d.Body) != want {
			e.Errorf("received %d bytes, want %d", len(d.Body), want)
		}
		e.ack(d)
	}
}

// heldIsNotFull has what subscribers hold not count.
func heldIsNotFull(e *env) {
	c := e.open()
	e.declare(c, refusing(c, routing.Queue{MaxLength: 2}))
	e.publish(c, "", msg("q", "0"), msg("q", "1"))
	s := e.subscriber(c, "q", 2)
	ds := e.receiveN(s, 2)
	e.publish(c, "", msg("q", "2"), msg("q", "3"))
	e.mustBe(e.try(c, "", msg("q", "4")), "Publish to a full queue", polymq.ErrRejected)
	// What is given back is not refused.
	e.close(s)
	e.mustBe(ds[0].Ack(e.ctx), "Ack of what was given back", polymq.ErrLost, polymq.ErrClosed)
	e.mustBe(e.try(c, "", msg("q", "5")), "Publish to a queue that has more than its limit", polymq.ErrRejected)
	s = e.subscriber(c, "q", 4)
	var got []string
	for range 4 {
		d := e.receive(s)
		got = append(got, string(d.Body))
		e.ack(d)
	}
	if slices.Sort(got); !slices.Equal(got, []string{"0", "1", "2", "3"}) {
		e.Errorf("the queue had %q, want what was confirmed", got)
	}
	e.ack(e.body(s, e.sentinel(c, "q")))
}

// heldSurvives restarts the broker while a subscriber holds what there is no
// room for beside the rest: all was confirmed, and all is there.
func heldSurvives(e *env) {
	url, restart := e.b.Restart(e.TB)
	c := e.openAt(url)
	e.declare(c, routing.Queue{Name: "q", MaxLength: 10, Overflow: routing.RejectPublish})
	ms := numbered(15, "q", "")
	e.publish(c, "", ms[:5]...)
	e.receiveN(e.subscriber(c, "q", 5), 5)
	e.publish(c, "", ms[5:]...)
	restart()
	e.close(c)
	c = e.openAt(url)
	s := e.subscriber(c, "q", len(ms))
	got := make([]string, len(ms))
	for i := range got {
		d := e.receiveWithin(s, e.again()+c.Features().Lease)
		got[i] = string(d.Body)
		e.ack(d)
	}
	want := bodies(ms)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		e.Errorf("the queue has %q, want %q", got, want)
	}
}

// refusedAgain publishes what was refused once more when there is room.
func refusedAgain(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", MaxLength: 1, Overflow: routing.RejectPublish})
	first := &polymq.Message{ID: "first", Key: "q", Body: []byte("first")}
	second := &polymq.Message{ID: "second", Key: "q", Body: []byte("second")}
	e.publish(c, "", first)
	e.mustBe(e.try(c, "", second), "Publish to a full queue", polymq.ErrRejected)
	e.publish(c, "", first) // it is there
	s := e.subscriber(c, "q", 1)
	e.ack(e.body(s, "first"))
	e.close(s)
	e.publish(c, "", second)
	e.holds(c, "q", "second")
}

// sameIDByRules publishes an ID twice to queues of every sort.
func sameIDByRules(e *env) {
	c := e.open()
	for f, q := range map[polymq.Feature]routing.Queue{
		polymq.FeaturePriority: {MaxPriority: 5}, polymq.FeatureMaxLength: {MaxLength: 10, MaxBytes: 1000},
		polymq.FeatureTTL: {TTL: time.Hour}, polymq.FeatureSingleActiveConsumer: {SingleActiveConsumer: true},
	} {
		if !c.Features().Has(f) {
			continue
		}
		q.Name = string(f)
		e.declare(c, q)
		m := &polymq.Message{ID: "the id", Key: q.Name, Body: []byte("1"), Priority: 3}
		e.publish(c, "", m)
		e.publish(e.open(), "", m)
		e.publish(c, "", m, &polymq.Message{ID: "another", Key: q.Name, Body: []byte("2")})
		e.holds(c, q.Name, "1", "2")
	}
}

// kinds declares the same limits on a durable and on a transient queue, which
// brokers may keep in different ways.
func (e *env) kinds(c *polymq.Conn, q routing.Queue, run func(name string)) {
	e.Helper()
	for _, name := range []string{"durable", "transient"} {
		q.Name, q.Transient = name, name == "transient"
		e.declareDead(c, q)
		run(name)
	}
}

func overflowDropped(e *env) {
	c := e.open()
	e.kinds(c, routing.Queue{MaxLength: 3}, func(name string) {
		e.publish(c, "", numbered(5, name, "")...)
		e.publish(c, "", msg(name, "5"))
		e.holds(c, name, "3", "4", "5")
	})
}

func overflowDeadLetter(e *env) {
	c := e.open()
	e.declare(c, "dead")
	e.kinds(c, toDead(routing.Queue{MaxLength: 2}), func(name string) {
		e.publish(c, "", numbered(5, name, "")...)
		dead := e.subscriber(c, "dead", 5)
		defer e.close(dead)
		for i := range 3 {
			d := e.body(dead, strconv.Itoa(i))
			e.died(d, polymq.Death{Queue: name, Reason: "maxlen", Keys: []string{name}})
			e.firstDeath(d, name, "maxlen", "")
			e.ack(d)
		}
		e.holds(c, name, "3", "4")
	})
	e.has(c, "dead")
}

func overflowBytes(e *env) {
	c := e.open()
	e.kinds(c, routing.Queue{MaxBytes: 100}, func(name string) {
		for i := range 5 {
			m := msg(name, strconv.Itoa(i)+string(make([]byte, 29)))
			m.Header = polymq.Header{"no": string(make([]byte, 200))} // not counted
			e.publish(c, "", m)
		}
		s := e.subscriber(c, name, 10)
		defer e.close(s)
		for i := range 3 {
			d := e.receive(s)
			if want := byte('2' + i); d.Body[0] != want {
				e.Errorf("received message %c, want %c", d.Body[0], want)
			}
			e.ack(d)
		}
		e.ack(e.body(s, e.sentinel(c, name)))
	})
}

func heldDoesNotOverflow(e *env) {
	c := e.open()
	e.kinds(c, routing.Queue{MaxLength: 2}, func(name string) {
		e.publish(c, "", numbered(2, name, "held ")...)
		s := e.subscriber(c, name, 2)
		ds := e.receiveN(s, 2)
		e.publish(c, "", numbered(2, name, "")...)
		e.ack(ds...)
		e.ack(e.body(s, "0"), e.body(s, "1"))
		e.close(s)
		e.holds(c, name)
	})
}

// givenBackOverflows gives back more than there is room for: the head leaves.
func givenBackOverflows(e *env) {
	c := e.open()
	e.kinds(c, routing.Queue{MaxLength: 2}, func(name string) {
		e.publish(c, "", numbered(2, name, "held ")...)
		s := e.subscriber(c, name, 2)
		e.receiveN(s, 2)
		e.publish(c, "", numbered(2, name, "")...)
		e.close(s)
		if c.Features().Requeue == "first" {
			e.holds(c, name, "0", "1")
			return
		}
		s = e.subscriber(c, name, 10)
		defer e.close(s)
		e.ack(e.receiveN(s, 2)...)
		e.ack(e.body(s, e.sentinel(c, name)))
	})
}
