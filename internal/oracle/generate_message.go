package oracle

import (
	"fmt"
	"time"

	"github.com/polymq/polymq"
)

// words of routing keys, few so that they match.
var words = []string{"a", "b", "c"}

func (g *generator) key() string {
	key := ""
	for i := range g.IntN(4) {
		if i > 0 {
			key += "."
		}
		key += pick(g, words...)
	}
	if g.chance(3) {
		key += "."
	}
	return key
}

func (g *generator) pattern() string {
	key, hashes := "", 0
	for i := range 1 + g.IntN(3) {
		if i > 0 {
			key += "."
		}
		word := pick(g, "a", "b", "c", "*", "#", "*")
		if word == "#" {
			if hashes++; hashes > 2 {
				word = "*"
			}
		}
		key += word
	}
	return key
}

// value is a header's, of any type.
func (g *generator) value(depth int) any {
	switch n := g.IntN(9); {
	case n == 0:
		return pick(g, "", "text", "ünïcode")
	case n == 1:
		return []byte(pick(g, "", "bytes\x00\xff"))
	case n == 2:
		return g.chance(50)
	case n == 3:
		return pick(g, int64(0), 1, -1, 1<<40, -1<<63)
	case n == 4:
		return pick(g, 0.5, -1e300, 3)
	case n == 5:
		return time.Unix(pick(g, int64(0), 1700000000), 0).UTC()
	case n == 6 || depth > 2:
		return nil
	case n == 7:
		return map[string]any{"k": g.value(depth + 1), "l": g.value(depth + 1)}
	}
	return []any{g.value(depth + 1), g.value(depth + 1)}
}

// matched is a value that a headers exchange compares: versions agree on these.
func (g *generator) matched() any {
	if g.chance(10) {
		g.avoid(knownHeaderNumbers)
	}
	return pick[any](g, "s", "t", int64(1), int64(2), true, false, nil)
}

func (g *generator) message() polymq.Message {
	g.messages++
	m := polymq.Message{ID: fmt.Sprintf("m%d", g.messages), Key: g.key(), Body: []byte(fmt.Sprintf("body %d", g.messages))}
	if g.chance(10) {
		m.Body = nil
	}
	header := polymq.Header{}
	if g.chance(40) {
		header["h1"] = g.matched()
	}
	if g.chance(30) {
		header["h2"] = g.matched()
	}
	if g.chance(25) {
		header[pick(g, "v1", "v2", "x-mine")] = g.value(0)
	}
	if g.chance(15) {
		header["CC"] = g.copies()
	}
	if g.chance(12) {
		header["BCC"] = g.copies()
	}
	if len(header) > 0 {
		m.Header = header
	}
	if g.chance(20) {
		m.ContentType, m.ContentEncoding, m.Type = "text/plain", "identity", "kind"
	}
	if g.chance(15) {
		m.CorrelationID, m.ReplyTo, m.AppID = "correlation", "reply", "app"
	}
	if g.chance(15) {
		m.Time = time.Unix(1700000000+int64(g.IntN(1000)), 0).UTC()
	}
	if g.chance(10) {
		// Delayed messages pass quorum queues, and may end in one.
		if g.o.from(4, 0) && (!g.s.Classic || g.s.Driver) {
			g.avoid(knownPlainPriority)
		} else {
			m.Priority = uint8(g.IntN(12))
		}
	}
	if g.chance(10) {
		m.Transient = true
	}
	if g.chance(5) {
		m.TTL = pick(g, time.Hour, 90*time.Minute)
	}
	return m
}

func (g *generator) messageTo(queue string) polymq.Message {
	m := g.message()
	m.Key = queue
	delete(m.Header, "CC")
	delete(m.Header, "BCC")
	return m
}

// copies are keys for CC or BCC, of queues as well, since the default exchange
// takes them too.
func (g *generator) copies() []any {
	list := []any{g.key()}
	for range g.IntN(2) {
		list = append(list, pick(g, append([]string{g.key()}, g.queues...)...))
	}
	return list
}

func (g *generator) soon() time.Duration { return time.Duration(60+10*g.IntN(6)) * time.Millisecond }
