package polymq

import (
	"strconv"
	"time"
)

// Death is why and where a message was dead-lettered: one entry for each queue
// and reason, as RabbitMQ counts them.
type Death struct {
	Queue string // that gave it up
	// Reason is "rejected", "expired", "maxlen" (pushed out by the queue's
	// limits) or "delivery_limit" (its attempts were used up).
	Reason   string
	Count    int       // how often
	Time     time.Time // the first time, to the second
	Exchange string    // where it was published then
	Keys     []string  // its routing key and those in CC
	// TTL is the message's own time to live, which it lost by this death.
	// 0: it had none.
	TTL time.Duration
}

// Deaths are the message's deaths, the latest first; nil where it has not been
// dead-lettered. They are what the header x-death holds; an entry of it that is
// not of that form is left out.
func (d *Delivery) Deaths() []Death {
	list, _ := d.Header["x-death"].([]any)
	var deaths []Death
	for _, e := range list {
		t, ok := e.(map[string]any)
		if !ok {
			continue
		}
		var x Death
		x.Queue, _ = t["queue"].(string)
		x.Reason, _ = t["reason"].(string)
		x.Exchange, _ = t["exchange"].(string)
		x.Time, _ = t["time"].(time.Time)
		count, _ := t["count"].(int64)
		x.Count = int(count)
		keys, _ := t["routing-keys"].([]any)
		for _, k := range keys {
			if key, ok := k.(string); ok {
				x.Keys = append(x.Keys, key)
			}
		}
		if text, ok := t["original-expiration"].(string); ok {
			if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
				x.TTL = time.Duration(ms) * time.Millisecond
			}
		}
		if x.Queue != "" && x.Reason != "" {
			deaths = append(deaths, x)
		}
	}
	return deaths
}
