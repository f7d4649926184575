package amqp

import (
	"testing"
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
