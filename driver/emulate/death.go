package emulate

import (
	"maps"
	"strconv"
	"time"

	"github.com/polymq/polymq/driver"
)

// Reason is why a message was dead-lettered, in RabbitMQ's words.
type Reason string

// The reasons.
const (
	Rejected  Reason = "rejected"       // by Reject
	Exhausted Reason = "delivery_limit" // its attempts are used up
	Expired   Reason = "expired"        // its time is over
	Overflown Reason = "maxlen"         // pushed out by the queue's limits
)

const headerDeath = "x-death"

// deadMessage is the message as the dead-letter exchange gets it: with
// RabbitMQ's headers about its deaths, newest first, one for each queue and
// reason. It has no time to live any more.
func deadMessage(d *driver.Delivery, q *Queue, reason Reason, now time.Time) *driver.Message {
	m := d.Message
	h := maps.Clone(m.Header)
	if h == nil {
		h = map[string]any{}
	}
	m.Header = h
	delete(h, "BCC")
	cc, _ := h["CC"].([]any)
	keys := append([]any{m.Key}, cc...)
	death := map[string]any{
		"queue": q.Name, "reason": string(reason), "count": int64(1), "exchange": d.Exchange,
		"routing-keys": keys, "time": now.UTC().Truncate(time.Second),
	}
	if m.TTL > 0 {
		death["original-expiration"] = strconv.FormatInt(m.TTL.Milliseconds(), 10)
		m.TTL = 0
	}
	before, _ := h[headerDeath].([]any)
	deaths := []any{death}
	for _, e := range before {
		t, ok := e.(map[string]any)
		if ok && t["queue"] == q.Name && t["reason"] == string(reason) {
			if n, ok := t["count"].(int64); ok {
				t = maps.Clone(t)
				t["count"] = n + 1
				deaths[0] = t
				continue
			}
		}
		deaths = append(deaths, e)
	}
	h[headerDeath] = deaths
	if _, ok := h["x-first-death-queue"]; !ok {
		h["x-first-death-queue"], h["x-first-death-reason"], h["x-first-death-exchange"] = q.Name, string(reason), d.Exchange
	}
	if q.DeadLetterKey != "" {
		m.Key = q.DeadLetterKey
		delete(h, "CC")
	}
	return &m
}

// shortHistory is what is left of a header that is too large with its history:
// the newest death.
func shortHistory(h map[string]any) map[string]any {
	h = maps.Clone(h)
	if deaths, ok := h[headerDeath].([]any); ok && len(deaths) > 1 {
		h[headerDeath] = deaths[:1:1]
	}
	for _, name := range []string{"x-first-death-queue", "x-first-death-reason", "x-first-death-exchange"} {
		delete(h, name)
	}
	return h
}
