package routing

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"time"
)

// headersIndex is all bindings: each is compared with the message's headers.
type headersIndex struct{ all group }

func (x headersIndex) with(b *binding, own bool) index { return headersIndex{groupPut(x.all, b, own)} }
func (x headersIndex) sealed() index                   { return x }
func (x headersIndex) without(b *binding) index        { return headersIndex{groupDel(x.all, b)} }
func (x headersIndex) each(f func(*binding))           { groupEach(x.all, f) }

func (x headersIndex) match(w *walk) { w.takeIf(x.all) }

// takeIf takes the bindings of g whose arguments match.
func (w *walk) takeIf(g group) {
	switch g := g.(type) {
	case *binding:
		if g.via.match.match(w.header) {
			w.take(g)
		}
	case *hamt:
		for _, s := range g.slots {
			w.takeIf(s)
		}
	case *clash:
		for _, leaf := range g.leaves {
			w.takeIf(leaf)
		}
	default:
		for _, b := range few(g) {
			if b != nil {
				w.takeIf(b)
			}
		}
	}
}

// A matcher is the arguments of a headers binding, compiled.
type matcher struct {
	any  bool
	args []arg
}

type arg struct {
	name  string
	value any
}

// Without arguments, every message matches.
var matchAll = &matcher{}

func newMatcher(args map[string]any) *matcher {
	mode, _ := args["x-match"].(string)
	m := &matcher{any: strings.HasPrefix(mode, "any")}
	withX := strings.HasSuffix(mode, "-with-x")
	for _, name := range slices.Sorted(maps.Keys(args)) {
		if name != "x-match" && (withX || !strings.HasPrefix(name, "x-")) {
			m.args = append(m.args, arg{name, args[name]})
		}
	}
	return m
}

func (m *matcher) match(header map[string]any) bool {
	for i := range m.args {
		a := &m.args[i]
		v, ok := header[a.name]
		if (ok && (a.value == nil || equal(a.value, v))) == m.any {
			return m.any
		}
	}
	return !m.any
}

// equal compares an argument with a header's value: integers by value, text
// with bytes, and nothing else across types. A time is never equal, since
// RabbitMQ 4 compares milliseconds with seconds there.
func equal(arg, v any) bool {
	switch a := arg.(type) {
	case string:
		switch v := v.(type) {
		case string:
			return a == v
		case []byte:
			return a == string(v)
		}
		return false
	case []byte:
		switch v := v.(type) {
		case string:
			return string(a) == v
		case []byte:
			return bytes.Equal(a, v)
		}
		return false
	case time.Time:
		return false
	}
	return same(arg, v)
}

// same compares values inside tables and lists, and all but the special cases
// of equal.
func same(a, v any) bool {
	switch a := a.(type) {
	case nil:
		return v == nil
	case bool:
		b, ok := v.(bool)
		return ok && a == b
	case int64:
		switch b := v.(type) {
		case int64:
			return a == b
		case int:
			return a == int64(b)
		case int32:
			return a == int64(b)
		case int16:
			return a == int64(b)
		case int8:
			return a == int64(b)
		}
	case float64:
		switch b := v.(type) {
		case float64:
			return a == b
		case float32:
			return a == float64(b)
		}
	case string:
		b, ok := v.(string)
		return ok && a == b
	case []byte:
		b, ok := v.([]byte)
		return ok && bytes.Equal(a, b)
	case time.Time:
		b, ok := v.(time.Time)
		return ok && a.Unix() == b.Unix()
	case []any:
		b, ok := v.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case map[string]any:
		b, ok := v.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	}
	return false
}
