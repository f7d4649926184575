package amqp

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestFields: what a queue's fields say stands, is told from anything else by
// the field's name, and is read back as it was declared.
func TestFields(t *testing.T) {
	c := open(t)
	full := routing.Queue{
		Name: "full", DeadLetterExchange: "dlx", DeadLetterKey: "k", MaxAttempts: 3, TTL: time.Minute, Expires: time.Hour,
		MaxLength: 10, MaxBytes: 1000, Overflow: routing.RejectPublish, SingleActiveConsumer: true,
	}
	levels := routing.Queue{Name: "levels", MaxPriority: 5, TTL: time.Second, DeadLetterExchange: "dlx", BestEffortDeadLetter: true, MaxLength: 3}
	queues := []routing.Queue{
		full, levels,
		{Name: "auto", AutoDelete: true}, {Name: "bounded", Type: typeClassic, MaxLength: 1, Overflow: routing.RejectPublish}, {Name: "bytes", MaxBytes: 7},
		{Name: "classic", Type: typeClassic}, {Name: "expires", Expires: time.Hour}, {Name: "exclusive", Exclusive: true},
		{Name: "quorum", MaxLength: 1, Overflow: routing.RejectPublish}, {Name: "transient", Transient: true},
	}
	slices.SortFunc(queues, func(a, b routing.Queue) int { return strings.Compare(a.Name, b.Name) })
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: queues}))
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: queues}))
	check(t, c.Verify(ctxOf(t), routing.Topology{Queues: queues}))
	stands, err := c.Topology(ctxOf(t))
	if err != nil || !reflect.DeepEqual(stands.Queues, queues) {
		t.Errorf("%v, stands\n%+v, want\n%+v", err, stands.Queues, queues)
	}
	for _, tc := range []struct {
		field string
		of    routing.Queue
		alter func(*routing.Queue)
	}{
		{"TTL", full, func(q *routing.Queue) { q.TTL = 2 * time.Minute }},
		{"TTL", full, func(q *routing.Queue) { q.TTL = 0 }},
		{"Expires", full, func(q *routing.Queue) { q.Expires = 0 }},
		{"MaxLength", full, func(q *routing.Queue) { q.MaxLength = 11 }},
		{"MaxBytes", full, func(q *routing.Queue) { q.MaxBytes = 0 }},
		{"BestEffortDeadLetter", full, func(q *routing.Queue) { q.BestEffortDeadLetter = true }},
		{"MaxAttempts", full, func(q *routing.Queue) { q.MaxAttempts = 4 }},
		{"SingleActiveConsumer", full, func(q *routing.Queue) { q.SingleActiveConsumer = false }},
		{"MaxPriority", levels, func(q *routing.Queue) { q.MaxPriority = 6 }},
		{"AutoDelete", levels, func(q *routing.Queue) { q.AutoDelete = true }},
		{"Exclusive", levels, func(q *routing.Queue) { q.Exclusive = true }},
		{"Transient", levels, func(q *routing.Queue) { q.Transient = true }},
		{"Overflow", levels, func(q *routing.Queue) { q.Overflow = routing.RejectPublish }},
	} {
		q := tc.of
		tc.alter(&q)
		for what, err := range map[string]error{
			"Declare": c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{q}}),
			"Verify":  c.Verify(ctxOf(t), routing.Topology{Queues: []routing.Queue{q}}),
		} {
			if !errors.Is(err, driver.ErrConflict) || !strings.Contains(err.Error(), tc.field) {
				t.Errorf("%s of %s: %v", what, tc.field, err)
			}
		}
	}
	// Drop-head is what a queue does that says nothing; an exclusive one never
	// outlives the broker.
	levels.Overflow = routing.DropHead
	same := routing.Topology{Queues: []routing.Queue{levels, {Name: "exclusive", Exclusive: true, Transient: true}}}
	check(t, c.Declare(ctxOf(t), same))
	check(t, c.Verify(ctxOf(t), same))
}

// TestRefusedFields: what RabbitMQ cannot do is refused before anything is made,
// with what to do instead.
func TestRefusedFields(t *testing.T) {
	for _, v := range []version{{3, 10}, {4, 0}, {4, 3}} {
		for _, tc := range []struct {
			q    routing.Queue
			text string // "": it is taken
		}{
			{routing.Queue{Type: typeQuorum, Exclusive: true}, "Exclusive"},
			{routing.Queue{Type: typeQuorum, AutoDelete: true}, "AutoDelete"},
			{routing.Queue{Type: typeQuorum, Transient: true}, "Transient"},
			{routing.Queue{Type: typeQuorum, MaxPriority: 3}, "MaxPriority"},
			{routing.Queue{Type: "stream"}, "quorum or classic"},
			{routing.Queue{MaxPriority: 3, MaxAttempts: 2}, "MaxPriority makes it one"},
			{routing.Queue{AutoDelete: true, MaxAttempts: 2}, "AutoDelete makes it one"},
			{routing.Queue{Exclusive: true, DeadLetterExchange: "x"}, "BestEffortDeadLetter"},
			{routing.Queue{MaxLength: 1, DeadLetterExchange: "x"}, "BestEffortDeadLetter"},
			{routing.Queue{MaxBytes: 1, Overflow: routing.DropHead, DeadLetterExchange: "x"}, "reject-publish"},
			{routing.Queue{Args: map[string]any{"x-queue-nonsense": 1}}, "x-queue-nonsense"},
			{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish, DeadLetterExchange: "x"}, ""},
			{routing.Queue{MaxLength: 1, DeadLetterExchange: "x", BestEffortDeadLetter: true}, ""},
			{routing.Queue{TTL: time.Second, Expires: time.Second, SingleActiveConsumer: true, MaxAttempts: 1}, ""},
			{routing.Queue{Exclusive: true, AutoDelete: true, Transient: true, MaxPriority: 9, MaxBytes: 1}, ""},
		} {
			_, err := formOf(tc.q, v)
			if tc.text == "" && err != nil || tc.text != "" && (!errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), tc.text)) {
				t.Errorf("%v: %+v: %v", v, tc.q, err)
			}
		}
	}
	old := routing.Queue{Type: typeClassic, Args: map[string]any{argMasterLocator: "min-masters"}}
	if _, err := formOf(old, version{4, 2}); err != nil {
		t.Error(err)
	}
	if _, err := formOf(old, version{4, 3}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("on 4.3: %v", err)
	}
	if _, err := exchangeArgs(routing.Exchange{Kind: routing.Topic, Args: map[string]any{"x": 1}}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("argument of an exchange: %v", err)
	}
}

// TestDefaultType: what an empty Type is.
func TestDefaultType(t *testing.T) {
	for _, tc := range []struct {
		q    routing.Queue
		want string
	}{
		{routing.Queue{}, typeQuorum},
		{routing.Queue{Transient: true}, typeClassic},
		{routing.Queue{Exclusive: true}, typeClassic},
		{routing.Queue{AutoDelete: true}, typeClassic},
		{routing.Queue{MaxPriority: 1}, typeClassic},
		{routing.Queue{MaxLength: 1}, typeQuorum},
		{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish}, typeQuorum},
		{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish, MaxPriority: 1}, typeClassic},
		{routing.Queue{MaxBytes: 1, Overflow: routing.RejectPublish, Expires: time.Hour}, typeQuorum},
		{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish, Transient: true}, typeClassic},
		{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish, MaxAttempts: 2}, typeQuorum},
		{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish, DeadLetterExchange: "x"}, typeQuorum},
		{routing.Queue{Expires: time.Hour}, typeClassic},
		{routing.Queue{MaxBytes: 1}, typeClassic},
		{routing.Queue{Expires: time.Hour, MaxAttempts: 2}, typeQuorum},
		{routing.Queue{MaxLength: 1, Overflow: routing.RejectPublish, DeadLetterExchange: "x", BestEffortDeadLetter: true}, typeQuorum},
	} {
		if got := tc.q.DefaultType(); got != tc.want {
			t.Errorf("%+v: %s, want %s", tc.q, got, tc.want)
		}
	}
}

// TestMessageTTL: the shorter one counts, rounded up; the dead letter tells of
// it and has none.
func TestMessageTTL(t *testing.T) {
	t.Parallel()
	c := open(t)
	for _, kind := range []string{typeQuorum, typeClassic} {
		q, dlq := "q-"+kind, "dlq-"+kind
		check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{
			{Name: q, Type: kind, TTL: 300 * time.Millisecond, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: dlq, BestEffortDeadLetter: kind == typeClassic},
			{Name: dlq}, {Name: "plain-" + kind, Type: kind},
		}}))
		p := publisherOf(t, c, "")
		start := time.Now()
		check(t, publish(t, p, driver.Message{ID: "short", Key: q, TTL: 99*time.Millisecond + 1}))
		check(t, publish(t, p, driver.Message{ID: "long", Key: q, TTL: time.Hour}))
		s := subscribe(t, c, dlq, 2)
		for i, want := range []struct {
			id, original string
			ttl          time.Duration
		}{{"short", "100", 100 * time.Millisecond}, {"long", "3600000", 300 * time.Millisecond}} {
			d := receive(t, s)
			deaths, _ := d.Message.Header.List(headerXDeath)
			if d.Message.ID != want.id || d.Message.TTL != 0 || len(deaths) != 1 || time.Since(start) < want.ttl {
				t.Fatalf("%s %d after %v: %+v", kind, i, time.Since(start), d)
			}
			death := deaths[0].(map[string]any)
			if death["reason"] != "expired" || death["original-expiration"] != want.original || d.Message.Header["x-first-death-reason"] != "expired" {
				t.Errorf("%s: %v", kind, d.Message.Header)
			}
			settle(t, s, d, driver.Ack)
		}
		// What is delivered keeps its own.
		check(t, publish(t, p, driver.Message{ID: "kept", Key: "plain-" + kind, TTL: time.Minute}))
		if d := receive(t, subscribe(t, c, "plain-"+kind, 1)); d.Message.TTL != time.Minute {
			t.Errorf("%s: TTL %v", kind, d.Message.TTL)
		}
	}
}

// TestDropHead: the head makes room, and goes to the dead letters.
func TestDropHead(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{
		{Name: "q", MaxLength: 2, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dlq", BestEffortDeadLetter: true}, {Name: "dlq"},
		{Name: "bytes", MaxBytes: 5},
	}}))
	p := publisherOf(t, c, "")
	for i := range 4 {
		check(t, publish(t, p, driver.Message{ID: fmt.Sprint(i), Key: "q"}))
		check(t, publish(t, p, driver.Message{ID: fmt.Sprint(i), Key: "bytes", Body: []byte("ab")}))
	}
	for queue, ids := range map[string][]string{"dlq": {"0", "1"}, "q": {"2", "3"}, "bytes": {"2", "3"}} {
		s := subscribe(t, c, queue, 5)
		for _, id := range ids {
			d := receive(t, s)
			if d.Message.ID != id {
				t.Errorf("%s: got %s, want %s", queue, d.Message.ID, id)
			}
			if queue == "dlq" && d.Message.Header["x-first-death-reason"] != "maxlen" {
				t.Errorf("death %v", d.Message.Header)
			}
		}
	}
}

// TestRejectPublish: exactly what is beyond the limit of a classic queue is
// refused, and other queues get one copy.
func TestRejectPublish(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Fanout}},
		Queues:    []routing.Queue{{Name: "q", Type: typeClassic, MaxLength: 2, Overflow: routing.RejectPublish}, {Name: "other"}},
		Bindings:  []routing.Binding{{Exchange: "x", Queue: "q"}, {Exchange: "x", Queue: "other"}},
	}))
	p := publisherOf(t, c, "x")
	for i, want := range []error{nil, nil, driver.ErrRejected, driver.ErrRejected} {
		if err := publish(t, p, driver.Message{ID: fmt.Sprint(i)}); !errors.Is(err, want) {
			t.Errorf("message %d: %v, want %v", i, err, want)
		}
	}
	s := subscribe(t, c, "q", 1)
	settle(t, s, receive(t, s), driver.Ack)
	check(t, publish(t, p, driver.Message{ID: "room"}))
	if n, err := c.Purge(ctxOf(t), "other"); n != 5 || err != nil {
		t.Errorf("the other queue has %d messages, %v; want one copy of each", n, err)
	}
}

// TestPriorities: the highest first, and what is beyond MaxPriority is like it.
func TestPriorities(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q", MaxPriority: 3}}}))
	p := publisherOf(t, c, "")
	for i, priority := range []uint8{0, 1, 3, 9, 2, 0, 255} {
		check(t, publish(t, p, driver.Message{ID: fmt.Sprint(i), Key: "q", Priority: priority}))
	}
	s := subscribe(t, c, "q", 10)
	var got string
	for range 7 {
		got += receive(t, s).Message.ID
	}
	if got != "2364105" {
		t.Errorf("came in the order %s", got)
	}
}

// TestSingleActive: the first has all, and the next when it ends.
func TestSingleActive(t *testing.T) {
	for _, kind := range []string{typeQuorum, typeClassic} {
		c := open(t)
		check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q", Type: kind, SingleActiveConsumer: true}}}))
		p := publisherOf(t, c, "")
		first, next := subscribe(t, c, "q", 1), subscribe(t, c, "q", 1)
		for i := range 3 {
			check(t, publish(t, p, driver.Message{ID: fmt.Sprint(i), Key: "q"}))
			d := receive(t, first)
			if d.Message.ID != fmt.Sprint(i) {
				t.Errorf("%s: got %+v", kind, d)
			}
			settle(t, first, d, driver.Ack)
		}
		check(t, first.Close(ctxOf(t)))
		check(t, publish(t, p, driver.Message{ID: "last", Key: "q"}))
		if d := receive(t, next); d.Message.ID != "last" {
			t.Errorf("%s: got %+v", kind, d)
		}
	}
}

// TestExpires: unused for that long it is gone, and its messages with it.
func TestExpires(t *testing.T) {
	c := open(t)
	p := publisherOf(t, c, "")
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "dlq"}}}))
	q := routing.Topology{Queues: []routing.Queue{{Name: "q", Type: typeClassic, Expires: 3 * time.Second, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dlq", BestEffortDeadLetter: true}}}
	check(t, c.Declare(ctxOf(t), q))
	check(t, publish(t, p, driver.Message{Key: "q"}))
	until(t, "it is gone", func() bool { return errors.Is(c.Verify(ctxOf(t), q), driver.ErrNotFound) })
	if n, err := c.Purge(ctxOf(t), "dlq"); n != 0 || err != nil {
		t.Errorf("%d dead letters, %v", n, err)
	}
}

// TestCloseReturnsInOrder: what was handed out and what was only prefetched come
// back as one, so that a limit drops the oldest of them.
func TestCloseReturnsInOrder(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q", Type: typeClassic, MaxBytes: 13}}}))
	pub := publisherOf(t, c, "")
	sub := subscribe(t, c, "q", 10)
	check(t, publish(t, pub, driver.Message{Key: "q", Body: []byte("01")}))
	if got := receive(t, sub); string(got.Message.Body) != "01" {
		t.Fatalf("received %q", got.Message.Body)
	}
	for _, body := range []string{"body 10", "body 11"} {
		check(t, publish(t, pub, driver.Message{Key: "q", Body: []byte(body)}))
	}
	check(t, sub.Close(ctxOf(t)))
	if got := receive(t, subscribe(t, c, "q", 10)); string(got.Message.Body) != "body 11" {
		t.Errorf("received %q: the limit has not dropped the two before it", got.Message.Body)
	}
}
