package amqp

import (
	"strings"
)

// restore makes a delivery what it was to the application that published it:
// the driver's own headers are taken out, and what a delayed copy was before
// is put back.
func (d *delivery) restore() {
	h := d.Message.Header
	if len(h) == 0 {
		return
	}
	origin, delayed := h[headerExchange].(string)
	if delayed && d.Exchange == exchangeIn {
		d.Exchange = origin
		if n, ok := h[headerAttempts].(int64); ok && h[headerQueue] == d.Queue && d.Attempt > 0 {
			d.Attempt += int(n)
		}
	}
	if user, ok := h[headerUser].(string); ok {
		d.Message.UserID = user
	}
	older, kept := h[headerDeath].([]any)
	if !kept {
		// An x-death that was no list when it was published.
		if v, odd := h[headerDeath]; odd {
			h[headerXDeath] = v
		}
	}
	if delayed {
		for k := range h {
			if strings.HasPrefix(k, headerBit) {
				delete(h, k)
			}
		}
	}
	for _, k := range [...]string{headerReturn, headerDeath, headerQueue, headerExchange, headerAttempts, headerUser} {
		delete(h, k)
	}
	newer, _ := h[headerXDeath].([]any)
	if !delayed && !kept || len(newer)+len(older) == 0 {
		return
	}
	deaths := mergeDeaths(newer, older, origin)
	if len(deaths) > 0 {
		h[headerXDeath] = deaths
	} else {
		delete(h, headerXDeath)
	}
	if !delayed {
		return
	}
	// The first and last deaths are the levels' where they took part.
	for _, end := range [...]struct {
		prefix string
		index  int
	}{{"x-first-death-", len(deaths) - 1}, {"x-last-death-", 0}} {
		if q, _ := h[end.prefix+"queue"].(string); !strings.HasPrefix(q, delayPrefix) {
			continue
		}
		for _, field := range [...]string{"queue", "reason", "exchange"} {
			delete(h, end.prefix+field)
			if len(deaths) > 0 {
				if t, ok := deaths[end.index].(map[string]any); ok {
					h[end.prefix+field] = t[field]
				}
			}
		}
	}
}

// mergeDeaths puts the broker's x-death, without what the delay levels added,
// before the one that the message had when it was last published, one entry a
// queue and reason.
func mergeDeaths(newer, older []any, origin string) []any {
	var deaths []any
	for _, v := range newer {
		t, ok := v.(map[string]any)
		if !ok {
			continue
		}
		if q, _ := t["queue"].(string); strings.HasPrefix(q, delayPrefix) {
			continue
		}
		if t["exchange"] == exchangeIn {
			t["exchange"] = origin
		}
		deaths = append(deaths, t)
	}
	for _, v := range older {
		if t, ok := v.(map[string]any); ok {
			if same := findDeath(deaths, t); same != nil {
				a, _ := same["count"].(int64)
				b, _ := t["count"].(int64)
				same["count"] = a + b
				if first, ok := t["time"]; ok {
					same["time"] = first
				}
				continue
			}
		}
		deaths = append(deaths, v)
	}
	return deaths
}

func findDeath(deaths []any, like map[string]any) map[string]any {
	for _, v := range deaths {
		if t, ok := v.(map[string]any); ok && t["queue"] == like["queue"] && t["reason"] == like["reason"] {
			return t
		}
	}
	return nil
}
