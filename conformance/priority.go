package conformance

import (
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/routing"
)

var priorityRows = []row{
	{promise: 6, name: "priorities", needs: []polymq.Feature{polymq.FeaturePriority}, run: priorities},
	{promise: 6, name: "priority-given-back", needs: []polymq.Feature{polymq.FeaturePriority}, run: priorityGivenBack},
	{promise: 6, name: "no-priorities", run: noPriorities},
	{promise: 6, name: "priority-overflow", needs: []polymq.Feature{polymq.FeaturePriority, polymq.FeatureMaxLength}, run: priorityOverflow},
	{promise: 10, name: "rules", needs: []polymq.Feature{polymq.FeaturePriority, polymq.FeatureMaxLength, polymq.FeatureTTL, polymq.FeatureDeadLetter}, hooks: hookRestart, run: rulesSurvive},
}

// prior is a message with a priority.
func prior(key, body string, priority uint8) *polymq.Message {
	return &polymq.Message{Key: key, Body: []byte(body), Priority: priority}
}

// priorities publishes all and takes them one by one: the highest first, those
// of one in their order, above the queue's highest as that.
func priorities(e *env) {
	c := e.open()
	const highest = 5
	e.declare(c, routing.Queue{Name: "q", MaxPriority: highest})
	levels := make([][]string, highest+1)
	var ms []*polymq.Message
	for i, priority := range []uint8{0, 3, 5, 9, 1, 255, 0, 2, 4, 4, 3, 2, 1, 0, 5, 6} {
		body := strconv.Itoa(i)
		ms = append(ms, prior("q", body, priority))
		level := min(int(priority), highest)
		levels[level] = append(levels[level], body)
	}
	e.publish(c, "", ms...)
	s := e.subscriber(c, "q", 1)
	for level := highest; level >= 0; level-- {
		for _, want := range levels[level] {
			d := e.body(s, want)
			if i, _ := strconv.Atoi(want); d.Priority != ms[i].Priority {
				e.Errorf("message %s is delivered with priority %d, want %d", want, d.Priority, ms[i].Priority)
			}
			e.ack(d)
		}
	}
	// What comes later goes before what waits.
	e.publish(c, "", prior("q", "held", 2))
	d := e.body(s, "held")
	e.publish(c, "", prior("q", "low", 1), prior("q", "lower", 0), prior("q", "high", 3))
	e.ack(d)
	for _, want := range []string{"high", "low", "lower"} {
		e.ack(e.body(s, want))
	}
}

func priorityGivenBack(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", MaxPriority: 9})
	e.publish(c, "", prior("q", "low", 1), prior("q", "high", 7), prior("q", "high too", 7))
	s := e.subscriber(c, "q", 1)
	e.nack(e.body(s, "high"), 0)
	d := e.receive(s)
	next, last := "high", "high too"
	if c.Features().Requeue == "last" && string(d.Body) == last {
		next, last = last, next // RabbitMQ's quorum queues; its classic ones do better
	}
	if string(d.Body) != next {
		e.Errorf("received %q, want %q", d.Body, next)
	}
	e.ack(d)
	e.ack(e.body(s, last))
	e.nack(e.body(s, "low"), 0)
	e.ack(e.body(s, "low"))
}

// noPriorities has a plain queue ignore them; where Features says that it cannot,
// those of one priority are in order.
func noPriorities(e *env) {
	c := e.open()
	e.declare(c, "q")
	minded := c.Features().PlainPriorities
	priorities := []uint8{0, 9, 1, 255, 5, 0, 9, 1, 255, 5}
	for i, priority := range priorities {
		e.publish(c, "", prior("q", strconv.Itoa(i), priority))
	}
	s := e.subscriber(c, "q", 1)
	var came []string
	for range priorities {
		d := e.receive(s)
		came = append(came, string(d.Body))
		e.ack(d)
	}
	for later, priority := range priorities {
		for earlier := range later {
			if minded && priorities[earlier] != priority {
				continue
			}
			if slices.Index(came, strconv.Itoa(earlier)) > slices.Index(came, strconv.Itoa(later)) {
				e.Errorf("received %q: %d is before %d, of priorities %v", came, later, earlier, priorities)
				return
			}
		}
	}
}

// priorityOverflow: what would be delivered next makes room.
func priorityOverflow(e *env) {
	c := e.open()
	e.declare(c, routing.Queue{Name: "q", MaxPriority: 3, MaxLength: 2})
	for i, priority := range []uint8{2, 3, 0, 1} {
		e.publish(c, "", prior("q", strconv.Itoa(i), priority))
	}
	e.holds(c, "q", "3", "2")
}

// rulesSurvive restarts the broker: the queues' rules stand, and what they have
// to go by is known of the messages.
func rulesSurvive(e *env) {
	url, restart := e.b.Restart(e.TB)
	c := e.openAt(url)
	t := topology("dead", routing.Queue{Name: "prior", MaxPriority: 5}, routing.Queue{Name: "full", MaxLength: 2, Overflow: routing.RejectPublish}, toDead(routing.Queue{Name: "timed"}))
	e.must(c.Declare(e.ctx, t), "Declare")
	for i, priority := range []uint8{1, 0, 5, 3, 1} {
		e.publish(c, "", prior("prior", strconv.Itoa(i), priority))
	}
	full := numbered(2+late(c), "full", "")
	for _, m := range full {
		e.publish(c, "", m)
	}
	e.publish(c, "", lasting("timed", "short", e.b.Patience/5), lasting("timed", "long", time.Hour))
	restart()
	c = e.openAt(url)
	e.must(c.Verify(e.ctx, t), "Verify after the restart")
	e.publish(c, "", prior("prior", "5", 4))
	e.mustBe(e.try(c, "", msg("full", "refused")), "Publish to a queue that was full before the restart", polymq.ErrRejected)
	e.equalBodies("full", e.receiveN(e.subscriber(c, "full", len(full)), len(full)), bodies(full))
	s := e.subscriber(c, "prior", 1)
	for _, want := range []string{"2", "5", "3", "0", "4", "1"} {
		e.ack(e.body(s, want))
	}
	d := e.receiveThe(e.subscriber(c, "dead", 1), "short")
	e.died(d, polymq.Death{Queue: "timed", Reason: "expired", Keys: []string{"timed"}, TTL: e.b.Patience / 5})
	e.ack(d)
	e.has(c, "timed", "long")
}
