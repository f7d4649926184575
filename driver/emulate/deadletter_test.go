package emulate

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// TestDeadLetters: what is rejected or exhausted arrives with its history; the
// original is acknowledged when it has.
func TestDeadLetters(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{
			Exchanges: []routing.Exchange{{Name: "dlx", Kind: routing.Direct}},
			Queues: []routing.Queue{
				{Name: "q", DeadLetterExchange: "dlx", MaxAttempts: 2},
				{Name: "keyed", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "grave"},
				{Name: "grave"}, {Name: "plain"},
			},
			Bindings: []routing.Binding{{Exchange: "dlx", Queue: "grave", Key: "q"}, {Exchange: "dlx", Queue: "grave", Key: "cc"}},
		})
		s := b.subscribe("q", 10)
		b.publish("q", "rejected", "exhausted")
		b.settle(s, b.receive(s), driver.Reject)
		synctest.Wait()
		for i := range 2 {
			d := b.receive(s)
			if d.Attempt != i+1 {
				t.Fatalf("attempt %d, want %d", d.Attempt, i+1)
			}
			b.settle(s, d, driver.Nack)
		}
		synctest.Wait()
		b.want("grave", "rejected", "exhausted")
		b.want("q")
		for i, reason := range []string{string(Rejected), string(Exhausted)} {
			m := b.queue("grave").messages[i]
			deaths := m.Message.Header["x-death"].([]any)
			death := deaths[0].(map[string]any)
			at, _ := death["time"].(time.Time)
			if len(deaths) != 1 || death["queue"] != "q" || death["reason"] != reason || death["count"] != int64(1) ||
				death["exchange"] != "" || fmt.Sprint(death["routing-keys"]) != "[q]" || at.IsZero() {
				t.Errorf("x-death is %v", deaths)
			}
			if h := m.Message.Header; h["x-first-death-queue"] != "q" || h["x-first-death-reason"] != reason || h["x-first-death-exchange"] != "" {
				t.Errorf("first death: %v", h)
			}
			if m.Exchange != "dlx" || m.Message.Key != "q" {
				t.Errorf("arrived by %q with %q", m.Exchange, m.Message.Key)
			}
		}
		// A message keeps its ID, also where a copy with that ID was published
		// to the target a moment ago.
		m := driver.Message{ID: "same", Key: "keyed", Body: []byte("both"), Header: driver.Header{"CC": []any{"grave"}}}
		if err := publish(t.Context(), b.publisher(""), m); err != nil {
			t.Fatal(err)
		}
		s = b.subscribe("keyed", 1)
		b.settle(s, b.receive(s), driver.Reject)
		synctest.Wait()
		b.want("grave", "rejected", "exhausted", "both", "both")
		last := b.queue("grave").messages[3].Message
		if _, there := last.Header["CC"]; there || last.Key != "grave" || last.ID != "same" {
			t.Errorf("with a dead-letter key: %+v", last)
		}
		// Without an exchange it is dropped.
		b.publish("plain", "dropped")
		s = b.subscribe("plain", 1)
		b.settle(s, b.receive(s), driver.Reject)
		if q := b.queue("plain"); len(q.messages)+len(q.held) != 0 {
			t.Error("a rejected message stays without a dead-letter exchange")
		}
	})
}

// TestDeadLetterTooLarge: the history of a message can make it too large. It
// goes without, or not at all.
func TestDeadLetterTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		log := b.log()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "grave"}, {Name: "grave"}}})
		largest := 1
		b.f.refuse = func(p *Parcel) error {
			if deaths, _ := p.Publishing.Message.Header[headerDeath].([]any); len(deaths) > largest || len(deaths) == 1 && largest == 1 && p.Publishing.Message.Header["x-first-death-queue"] != nil {
				return driver.ErrTooLarge
			}
			return nil
		}
		before := map[string]any{"queue": "older", "reason": string(Rejected), "count": int64(7)}
		m := driver.Message{Key: "q", Body: []byte("1"), Header: driver.Header{headerDeath: []any{before}, "mine": "h"}}
		if err := publish(t.Context(), b.publisher(""), m); err != nil {
			t.Fatal(err)
		}
		s := b.subscribe("q", 1)
		b.settle(s, b.receive(s), driver.Reject)
		time.Sleep(time.Second)
		synctest.Wait()
		b.want("grave", "1")
		h := b.queue("grave").messages[0].Message.Header
		if deaths := h[headerDeath].([]any); len(h) != 2 || h["mine"] != "h" || len(deaths) != 1 || deaths[0].(map[string]any)["queue"] != "q" {
			t.Errorf("the header is %v", h)
		}
		if log.String() != "" {
			t.Errorf("logged: %s", log)
		}
		largest = 0
		b.publish("q", "2")
		b.settle(s, b.receive(s), driver.Reject)
		if d := b.receive(s); d.Attempt != 2 || string(d.Message.Body) != "2" {
			t.Errorf("got %q, attempt %d", d.Message.Body, d.Attempt)
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
			t.Errorf("%d errors were logged:\n%s", n, log)
		}
	})
}

// TestDeadLetterCircle: a message that only the limit moves is dropped rather
// than sent round for ever; a rejection starts anew.
func TestDeadLetterCircle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		defer b.close()
		b.declare(routing.Topology{Queues: []routing.Queue{{Name: "q", DeadLetterExchange: routing.DefaultExchange, MaxAttempts: 1}}})
		b.publish("q", "m")
		s := b.subscribe("q", 1)
		b.settle(s, b.receive(s), driver.Reject)
		synctest.Wait()
		d := b.receive(s)
		b.settle(s, d, driver.Reject)
		synctest.Wait()
		d = b.receive(s)
		deaths := d.Message.Header["x-death"].([]any)
		if len(deaths) != 1 || deaths[0].(map[string]any)["count"] != int64(2) {
			t.Errorf("x-death after two rejections: %v", deaths)
		}
		b.settle(s, d, driver.Nack)
		synctest.Wait()
		if q := b.queue("q"); len(q.messages)+len(q.held) != 0 {
			t.Errorf("%d ready, %d held", len(q.messages), len(q.held))
		}
	})
}

// log is what the connection logs from now on.
func (b *bench) log() *bytes.Buffer {
	var text bytes.Buffer
	b.c.(*conn).cfg.Logger = slog.New(slog.NewTextHandler(&text, nil))
	return &text
}
