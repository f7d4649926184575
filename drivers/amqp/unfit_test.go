package amqp

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// nested is a value of so many lists around another.
func nested(depth int, v any) any {
	for range depth {
		v = []any{v}
	}
	return v
}

func wide(n int) driver.Header {
	h := driver.Header{}
	for i := range n {
		h[fmt.Sprint(i)] = nil
	}
	return h
}

// TestHeaderLimits publishes headers at the limits of what amqp091 reads: they
// arrive, also after a delay, and those beyond are refused instead of ending
// the connection of their consumers.
func TestHeaderLimits(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	s := subscribe(t, c, "q", 1)
	for name, h := range map[string]driver.Header{
		"list":         {"l": make([]any, maxElements)},
		"table":        {"t": map[string]any(wide(maxElements))},
		"header":       wide(maxElements - ownHeaders - brokerHeaders),
		"nested":       {"n": nested(maxNesting, "x")},
		"nested empty": {"n": nested(maxNesting-1, []any{})},
		"bytes":        {"s": strings.Repeat("x", headerRoom(frameSize, false)-200)},
	} {
		want := len(h)
		if err := publish(t, p, driver.Message{Key: "q", Header: maps.Clone(h)}); err != nil {
			t.Errorf("%s at the limit: %v", name, err)
			continue
		}
		d := receive(t, s)
		if err := s.Settle(ctxOf(t), d, driver.Nack, delayUnit); err != nil {
			t.Fatalf("%s at the limit, with a delay: %v", name, err)
		}
		d = receive(t, s)
		if len(d.Message.Header) < want { // the broker may have added a count
			t.Errorf("%s at the limit: %d headers of %d arrived", name, len(d.Message.Header), want)
		}
		settle(t, s, d, driver.Ack)
	}
	for name, h := range map[string]driver.Header{
		"list":         {"l": make([]any, maxElements+1)},
		"list in list": {"l": []any{make([]any, maxElements+1)}},
		"table":        {"t": map[string]any(wide(maxElements + 1))},
		"header":       wide(maxElements),
		"nested":       {"n": nested(maxNesting+1, "x")},
		"nested empty": {"n": nested(maxNesting, []any{})},
		"bytes":        {"s": strings.Repeat("x", frameSize)},
		"own name":     {prefixOwn + strings.Repeat("x", 245): true},
	} {
		if err := publish(t, p, driver.Message{Key: "q", Header: h}); !errors.Is(err, driver.ErrTooLarge) {
			t.Errorf("%s beyond the limit: %v", name, err)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1)} {
		if err := publish(t, p, driver.Message{Key: "q", Header: driver.Header{"l": []any{f}}}); !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%v: %v", f, err)
		}
	}
}

// TestOwnNames: an application's headers may be called like the driver's own.
func TestOwnNames(t *testing.T) {
	c := open(t)
	declare(t, c, routing.Queue{Name: "q"})
	p := publisherOf(t, c, "")
	h := driver.Header{
		headerReturn: int64(5), headerQueue: "r", headerExchange: "x", headerAttempts: int64(9), headerUser: "u",
		headerDeath: "d", headerFirst: "f", headerLast: "l", headerBit + "3": true,
		prefixEscaped + "queue": "e", prefixEscaped + "app-queue": "ee",
	}
	if err := publish(t, p, driver.Message{Key: "nowhere", ID: "x", Header: maps.Clone(h)}); !errors.Is(err, driver.ErrUnroutable) {
		t.Errorf("to nowhere: %v", err)
	}
	check(t, publish(t, p, driver.Message{Key: "q", Header: maps.Clone(h)}))
	s := subscribe(t, c, "q", 1)
	for try := range 2 {
		d := receive(t, s)
		for k, v := range h {
			if d.Message.Header[k] != v {
				t.Errorf("delivery %d: header %s is %v, want %v", try, k, d.Message.Header[k], v)
			}
		}
		if d.Attempt != try+1 || d.Message.UserID != "" {
			t.Errorf("delivery %d: attempt %d, user %q", try, d.Attempt, d.Message.UserID)
		}
		outcome := driver.Nack
		if try > 0 {
			outcome = driver.Ack
		}
		check(t, s.Settle(ctxOf(t), d, outcome, delayUnit))
	}
}

// TestUnmarkedReturn: what comes back without its mark is put on the oldest
// that it can be.
func TestUnmarkedReturn(t *testing.T) {
	from := &publisher{exchange: "x"}
	in := &amqp091.DeferredConfirmation{}
	o := &outbox{flight: []item{
		{from: from, id: "other", confirm: in}, {from: from, id: "id"}, {from: from, id: "id", mark: 1, confirm: in}, {from: from, id: "id", mark: 2, confirm: in},
	}}
	returned := func() (n []int) {
		for i, it := range o.flight {
			if it.returned {
				n = append(n, i)
			}
		}
		return n
	}
	o.markReturned(&amqp091.Return{Exchange: "x", MessageId: "id", Headers: amqp091.Table{headerReturn: int64(2)}})
	if got := returned(); len(got) != 1 || got[0] != 3 {
		t.Errorf("with its mark: %v", got)
	}
	o.markReturned(&amqp091.Return{Exchange: "x", MessageId: "id"})
	if got := returned(); len(got) != 2 || got[0] != 2 {
		t.Errorf("without a mark: %v", got)
	}
}
