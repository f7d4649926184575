package conformance

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/internal/deadline"
	"github.com/polymq/polymq/routing"
)

// pass lets time pass.
func (e *env) pass(d time.Duration) {
	select {
	case <-time.After(d):
	case <-e.ctx.Done():
	}
}

// beforehand has f, which returns when it began, be over before a time has passed.
// Where it was not, on a busy machine, f is called again with twice the time, and
// with another suffix for the names that it uses.
func (e *env) beforehand(passes time.Duration, f func(suffix string, passes time.Duration) (began time.Time)) {
	e.Helper()
	for try := range 5 {
		if began := f(strconv.Itoa(try), passes); time.Since(began) < passes {
			return
		}
		passes *= 2
	}
	e.Fatalf("this machine is too busy: calls took longer than %v", passes/2)
}

// returns runs a call whose context ends after d, and wants it to return within
// Patience of that.
func (e *env) returns(what string, d time.Duration, call func(ctx context.Context) error) error {
	e.Helper()
	late, err := deadline.Call(e.ctx, d, e.b.Patience, call)
	if late {
		e.Errorf("%s had not returned %v after its context had ended", what, e.b.Patience)
	}
	return err
}

// holds wants a queue to have messages with these bodies, and no others. It
// puts its sentinel there when those have left, for queues with limits.
func (e *env) holds(c *polymq.Conn, queue string, want ...string) {
	e.Helper()
	s := e.subscriber(c, queue, 100)
	defer e.close(s)
	ds := make([]*polymq.Delivery, len(want))
	for i := range ds {
		ds[i] = e.receive(s)
	}
	e.equalBodies(queue, ds, want)
	e.ack(ds...)
	e.ack(e.body(s, e.sentinel(c, queue)))
}

// nothing wants a subscriber to get nothing of what was published before. It
// publishes sentinels until one arrives, since they may expire on the way.
func (e *env) nothing(c *polymq.Conn, s *polymq.Subscriber) {
	e.Helper()
	ours := map[string]bool{}
	e.eventually("a sentinel arrives", func() bool {
		ours[e.sentinel(c, s.Queue())] = true
		ctx, cancel := context.WithTimeout(e.ctx, e.b.Patience/10)
		defer cancel()
		d, err := s.Receive(ctx)
		if err != nil {
			return false
		}
		if !ours[string(d.Body)] {
			e.Fatalf("queue %q: received %.60q, want nothing but the sentinel", s.Queue(), d.Body)
		}
		e.ack(d)
		return true
	})
}

// ready wants so many messages to be ready.
func (e *env) ready(c *polymq.Conn, queue string, want int) {
	e.Helper()
	got := -1
	defer func() {
		if got != want {
			e.Logf("queue %q has %d ready messages, want %d", queue, got, want)
		}
	}()
	e.eventually("the count of ready messages", func() bool {
		info, err := c.Inspect(e.ctx, queue)
		e.must(err, "Inspect of %q", queue)
		got = info.Ready
		return got == want
	})
}

// gone wants a queue to be deleted, in time.
func (e *env) gone(c *polymq.Conn, queue string, within time.Duration) {
	e.Helper()
	e.eventuallyWithin(within, "queue "+queue+" is deleted", func() bool {
		err := e.try(c, "", msg(queue, "is it there?"))
		if err != nil && !is(err, polymq.ErrUnroutable) {
			e.Fatalf("Publish to a queue that is to be deleted: %v", err)
		}
		return err != nil
	})
}

// there wants a queue to be there.
func (e *env) there(c *polymq.Conn, queue string) {
	e.Helper()
	e.publish(c, "", msg(queue, "it is there"))
}

// declareDead declares a queue with a dead-letter exchange; where the broker
// can lose such dead letters, it accepts that.
func (e *env) declareDead(c *polymq.Conn, q routing.Queue) {
	e.Helper()
	err := c.Declare(e.ctx, topology(q))
	if errors.Is(err, errors.ErrUnsupported) {
		e.says(err, "Declare of a queue whose dead letters can be lost", "BestEffortDeadLetter")
		q.BestEffortDeadLetter = true
		err = c.Declare(e.ctx, topology(q))
	}
	e.must(err, "Declare of %+v", q)
}

// died wants a dead letter's history as the core reads it, the latest first.
func (e *env) died(d *polymq.Delivery, want ...polymq.Death) {
	e.Helper()
	got := d.Deaths()
	if len(got) != len(want) {
		e.Errorf("message %.40q has %d deaths, want %d: %+v", d.Body, len(got), len(want), got)
		return
	}
	for i, g := range got {
		if age := time.Since(g.Time); age > time.Hour || age < -time.Hour {
			e.Errorf("death %d of message %.40q: Time is %v, want about now", i, d.Body, g.Time)
		}
		g.Time = want[i].Time
		if g.Count == 0 || !sameDeath(g, want[i]) {
			e.Errorf("death %d of message %.40q is %+v, want %+v", i, d.Body, g, want[i])
		}
	}
}

func sameDeath(a, b polymq.Death) bool {
	return a.Queue == b.Queue && a.Reason == b.Reason && a.Count == max(b.Count, 1) && a.Exchange == b.Exchange &&
		slices.Equal(a.Keys, b.Keys) && a.TTL == b.TTL
}
