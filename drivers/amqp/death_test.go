package amqp

import (
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// What a broker tells of a message that died in another queue, as it was seen
// on RabbitMQ 3.10.8, 4.0.5 and 4.3.6.
func TestDeadLetterAttempt(t *testing.T) {
	for _, tc := range []struct {
		name        string
		version     version
		count       int64
		acquired    int64
		redelivered bool
		last        string // the reason of the last death
		want        int
	}{
		{"3.10, first", version{3, 10}, 0, 0, false, "", 1},
		{"3.10, returned", version{3, 10}, 1, 0, true, "", 2},
		{"4.0, first", version{4, 0}, 1, 0, true, "rejected", 1},
		{"4.0, returned twice", version{4, 0}, 2, 0, true, "rejected", 3},
		{"4.0, expired, returned", version{4, 0}, 1, 0, true, "expired", 2},
		{"4.3, first", version{4, 3}, 1, 1, true, "rejected", 1},
		{"4.3, returned", version{4, 3}, 2, 1, true, "rejected", 2},
		{"4.3, first, returned before", version{4, 3}, 3, 4, true, "rejected", 1},
		{"4.3, returned here and before", version{4, 3}, 5, 2, true, "rejected", 3},
		{"4.3, exhausted, first", version{4, 3}, 4, 4, true, "delivery_limit", 1},
		{"4.3, exhausted, returned", version{4, 3}, 5, 1, true, "delivery_limit", 2},
		{"4.3, expired, returned", version{4, 3}, 1, 1, true, "expired", 2},
		{"4.3, expired after returns, returned", version{4, 3}, 3, 1, true, "expired", 2},
		{"4.3, no dead letter", version{4, 3}, 1, 1, true, "", 2},
	} {
		d := &delivery{}
		d.Redelivered = tc.redelivered
		d.Message.Header = map[string]any{headerDelivered: tc.count, headerAcquired: tc.acquired}
		if tc.last != "" {
			d.Message.Header[prefixLast+"reason"] = tc.last
		}
		if d.counted(typeQuorum, tc.version); d.Attempt != tc.want {
			t.Errorf("%s: attempt %d, want %d", tc.name, d.Attempt, tc.want)
		}
	}
}

func TestDeadLetterCC(t *testing.T) {
	died := func(keys ...any) []any {
		return []any{map[string]any{"queue": "q", "reason": "rejected", "routing-keys": keys}}
	}
	for _, tc := range []struct {
		name   string
		deaths []any
		key    string
		cc     any
		want   bool
	}{
		{"not dead", nil, "k", []any{"cc"}, false},
		{"its own keys", died("k", "cc"), "k", []any{"cc"}, false},
		{"a dead-letter key", died("k", "cc"), "letter", []any{"cc"}, true},
		{"and dead again", died("letter"), "letter", []any{"cc"}, true},
		{"nonsense", []any{1, "x"}, "k", map[string]any{}, true},
		{"more nonsense", died([]byte("k"), map[string]any{}), "k", []any{map[string]any{}}, true},
	} {
		if got := rekeyed(tc.deaths, tc.key, tc.cc); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
}

// The broker's counts are no headers of the application's, those that somebody
// has published are.
func TestCountsTakenOut(t *testing.T) {
	counts := func(more map[string]any) map[string]any {
		h := map[string]any{headerDelivered: int64(1), headerAcquired: int64(1)}
		for k, v := range more {
			h[k] = v
		}
		return h
	}
	died := map[string]any{prefixLast + "reason": "rejected"}
	for _, tc := range []struct {
		name        string
		kind        string
		redelivered bool
		header      map[string]any
		left        int
	}{
		{"given back uncounted", typeQuorum, true, map[string]any{headerAcquired: int64(1)}, 0},
		{"counted", typeQuorum, true, counts(nil), 0},
		{"published", typeQuorum, false, counts(nil), 2},
		{"published to a classic queue", typeClassic, true, counts(nil), 2},
		{"died on its way to a classic queue", typeClassic, true, counts(died), 1},
	} {
		d := &delivery{}
		d.Redelivered, d.Message.Header = tc.redelivered, tc.header
		if d.counted(tc.kind, version{4, 3}); len(d.Message.Header) != tc.left {
			t.Errorf("%s: %v", tc.name, d.Message.Header)
		}
	}
}

// TestDeadUnroutable: what dies in polymq.unroutable shows where it was
// published, and nothing of the way that it came.
func TestDeadUnroutable(t *testing.T) {
	t.Parallel()
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "y", Kind: routing.Direct}},
		Queues: []routing.Queue{
			{Name: driver.UnroutableQueue, TTL: 100 * time.Millisecond, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "dlq"},
			{Name: "dlq", MaxAttempts: 2, DeadLetterExchange: routing.DefaultExchange, DeadLetterKey: "last"}, {Name: "last"},
		},
	}))
	check(t, publish(t, publisherOf(t, c, "y"), driver.Message{ID: "m", Key: "k", TTL: time.Hour, Delay: 10 * time.Millisecond, Header: driver.Header{"polymq-mine": "v", "h": "v"}}))
	dlq := subscribe(t, c, "dlq", 1)
	for round, s := range []driver.Subscriber{dlq, subscribe(t, c, "last", 1)} {
		d := receive(t, s)
		h := d.Message.Header
		deaths, _ := h.List(headerXDeath)
		if len(deaths) != round+1 || h["polymq-mine"] != "v" || h["h"] != "v" || d.Message.TTL != 0 {
			t.Fatalf("got %+v", d)
		}
		first := deaths[round].(map[string]any)
		if first["queue"] != driver.UnroutableQueue || first["reason"] != "expired" || first["exchange"] != "y" || h[prefixFirst+"exchange"] != "y" {
			t.Errorf("got %v", h)
		}
		for name := range h {
			if strings.HasPrefix(name, prefixOwn) && name != "polymq-mine" {
				t.Errorf("header %s is left", name)
			}
		}
		if round == 0 {
			nackLater(t, s, d, 10*time.Millisecond)
			settle(t, s, receive(t, s), driver.Nack)
		}
	}
}
