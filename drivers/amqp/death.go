package amqp

import (
	"slices"
	"strings"
	"time"
)

// restore makes a delivery what it was to the application that published it:
// the driver's own headers are taken out, and what a delayed copy was before
// is put back.
func (d *delivery) restore() {
	h := d.Message.Header
	if len(h) == 0 {
		return
	}
	newer, _ := h[headerXDeath].([]any)
	if _, there := h[headerCC]; there && rekeyed(newer, d.Message.Key, h[headerCC]) {
		delete(h, headerCC)
	}
	// Only the broker makes a copy that comes from the delay levels: headers
	// like a copy's on anything else are the publisher's own.
	lost := d.Exchange == exchangeLost
	delayed := ownExchange(d.Exchange) || wasDelayed(newer)
	before, kept := h[headerDeath]
	delete(h, headerDeath)
	delete(h, headerReturn)
	for _, name := range [...]string{headerDelivered, headerAcquired} {
		if v, ok := h[keptName(name)]; ok {
			delete(h, keptName(name))
			h[name] = v
		}
	}
	origin := d.Exchange
	var first, last any
	if delayed {
		origin, _ = h[headerExchange].(string)
		if lost {
			d.Exchange = origin
			if ms, ok := h[headerTTL].(int64); ok {
				d.Message.TTL = time.Duration(ms) * time.Millisecond
			}
		}
		if d.Exchange == exchangeIn {
			d.Exchange = origin
			if n, ok := h[headerAttempts].(int64); ok && h[headerQueue] == d.Queue && d.Attempt > 0 {
				d.Attempt += int(n)
			}
		}
		if user, ok := h[headerUser].(string); ok {
			d.Message.UserID = user
		}
		first, last = h[headerFirst], h[headerLast]
		for k := range h {
			if strings.HasPrefix(k, prefixOwn) && !strings.HasPrefix(k, prefixEscaped) {
				delete(h, k)
			}
		}
	}
	unescape(h)
	if !delayed && !kept {
		return
	}
	newer = ownDeaths(newer, origin)
	older, list := before.([]any)
	switch deaths := mergeDeaths(newer, older); {
	case len(deaths) > 0:
		h[headerXDeath] = deaths
	case kept && !list:
		h[headerXDeath] = before // whatever the application meant by it
	default:
		delete(h, headerXDeath)
	}
	if !delayed {
		return
	}
	// A delay is no death: the first and the last are those before it, or those
	// that came after.
	if first == nil && len(newer) > 0 {
		first = newer[len(newer)-1]
	}
	if len(newer) > 0 {
		last = newer[0]
	}
	putEnd(h, prefixFirst, first, true)
	putEnd(h, prefixLast, last, len(newer) == 0)
}

// rekeyed reports whether a queue's dead-letter key has replaced the keys of a
// message, CC among them. RabbitMQ 4 routes the dead letter so, but leaves the
// header there that it took out before.
func rekeyed(deaths []any, key string, cc any) bool {
	if len(deaths) == 0 {
		return false
	}
	newest, _ := deaths[0].(map[string]any)
	if q, _ := newest["queue"].(string); strings.HasPrefix(q, delayPrefix) {
		return false
	}
	keys, _ := newest["routing-keys"].([]any)
	routed := func(key any) bool {
		text, ok := key.(string)
		return ok && slices.Contains(keys, any(text))
	}
	list, _ := cc.([]any)
	return !routed(key) || slices.ContainsFunc(list, func(k any) bool { return !routed(k) })
}

// wasDelayed reports whether deaths tell of the delay levels.
func wasDelayed(deaths []any) bool {
	for _, v := range deaths {
		if t, ok := v.(map[string]any); ok {
			if q, _ := t["queue"].(string); ownExchange(t["exchange"]) || strings.HasPrefix(q, delayPrefix) {
				return true
			}
		}
	}
	return false
}

// ownExchange reports one that leads from the levels into a queue of the
// application's.
func ownExchange(name any) bool { return name == exchangeIn || name == exchangeLost }

// endFields are what the headers of the first and the last death tell.
var endFields = [...]string{"queue", "reason", "exchange"}

// takeEnd removes the headers of one prefix and returns them as a table; nil
// when there are none.
func takeEnd(h map[string]any, prefix string) any {
	var t map[string]any
	for _, field := range endFields {
		if v, ok := h[prefix+field]; ok {
			if t == nil {
				t = map[string]any{}
			}
			t[field] = v
			delete(h, prefix+field)
		}
	}
	if t == nil {
		return nil
	}
	return t
}

// putEnd makes the headers of one prefix what end says: always, or where the
// broker sends them.
func putEnd(h map[string]any, prefix string, end any, always bool) {
	was := takeEnd(h, prefix)
	t, ok := end.(map[string]any)
	if was == nil && !(ok && always) {
		return
	}
	for _, field := range endFields {
		if v, ok := t[field]; ok {
			h[prefix+field] = v
		}
	}
}

// ownDeaths is the broker's x-death without what the delay levels added.
func ownDeaths(list []any, origin string) []any {
	var deaths []any
	for _, v := range list {
		t, ok := v.(map[string]any)
		if !ok {
			continue
		}
		if q, _ := t["queue"].(string); strings.HasPrefix(q, delayPrefix) {
			continue
		}
		if ownExchange(t["exchange"]) {
			t["exchange"] = origin
		}
		deaths = append(deaths, t)
	}
	return deaths
}

// mergeDeaths puts the broker's deaths before those that the message had when
// it was last published, one entry a queue and reason.
func mergeDeaths(newer, older []any) []any {
	deaths := newer[:len(newer):len(newer)]
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
		if t, ok := v.(map[string]any); ok && sameText(t["queue"], like["queue"]) && sameText(t["reason"], like["reason"]) {
			return t
		}
	}
	return nil
}

// sameText compares what should be texts: of others, which somebody has
// published, some cannot be compared.
func sameText(a, b any) bool {
	x, xok := a.(string)
	y, yok := b.(string)
	return xok && yok && x == y
}
