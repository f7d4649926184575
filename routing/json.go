package routing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MarshalJSON writes the topology as UnmarshalJSON reads it; what is empty is
// left out.
func (t Topology) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	var err error
	if b, err = appendList(b, "exchanges", t.Exchanges); err == nil {
		if b, err = appendList(b, "queues", t.Queues); err == nil {
			b, err = appendList(b, "bindings", t.Bindings)
		}
	}
	return append(b, '}'), err
}

// UnmarshalJSON reads a topology from an object with the lists exchanges,
// queues and bindings. The fields of their elements are named as in Go, in
// lower case and with _ between words (dead_letter_exchange); times are texts
// like "30s". In arguments a number is a float if it has a point or an exponent;
// bytes are {"$bytes": "base64"}, times {"$time": "2006-01-02T15:04:05Z"}, and a
// table whose only name begins with $ stands in {"$table": …}.
//
// A name that is unknown or given twice is refused. Every problem is reported,
// with its element, and wraps ErrInvalid. Whether the topology is legal is
// another question (Validate).
func (t *Topology) UnmarshalJSON(data []byte) error {
	members, err := membersOf(data)
	if err != nil {
		return fmt.Errorf("topology: %w", err)
	}
	var read Topology
	var errs []error
	for _, m := range members {
		switch m.key {
		case "exchanges":
			read.Exchanges, err = parseList(m, func(x *Exchange) []field { return x.fields() })
		case "queues":
			read.Queues, err = parseList(m, func(q *Queue) []field { return q.fields() })
		case "bindings":
			read.Bindings, err = parseList(m, func(b *Binding) []field { return b.fields() })
		default:
			err = fmt.Errorf("topology: %w: unknown key %q: want exchanges, queues, bindings", ErrInvalid, m.key)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	*t = read
	return nil
}

// MarshalJSON writes the exchange as it stands in a Topology.
func (x Exchange) MarshalJSON() ([]byte, error) { return appendFields(nil, x.fields()) }

// UnmarshalJSON reads the exchange as it stands in a Topology.
func (x *Exchange) UnmarshalJSON(data []byte) error {
	var read Exchange
	err := parseFields(data, "exchange", read.fields())
	if err == nil {
		*x = read
	}
	return err
}

// MarshalJSON writes the queue as it stands in a Topology.
func (q Queue) MarshalJSON() ([]byte, error) { return appendFields(nil, q.fields()) }

// UnmarshalJSON reads the queue as it stands in a Topology.
func (q *Queue) UnmarshalJSON(data []byte) error {
	var read Queue
	err := parseFields(data, "queue", read.fields())
	if err == nil {
		*q = read
	}
	return err
}

// MarshalJSON writes the binding as it stands in a Topology.
func (b Binding) MarshalJSON() ([]byte, error) { return appendFields(nil, b.fields()) }

// UnmarshalJSON reads the binding as it stands in a Topology.
func (b *Binding) UnmarshalJSON(data []byte) error {
	var read Binding
	err := parseFields(data, "binding", read.fields())
	if err == nil {
		*b = read
	}
	return err
}

func appendList[T json.Marshaler](b []byte, key string, list []T) ([]byte, error) {
	if len(list) == 0 {
		return b, nil
	}
	if len(b) > 1 {
		b = append(b, ',')
	}
	b = append(b, `"`+key+`":[`...)
	for i, e := range list {
		if i > 0 {
			b = append(b, ',')
		}
		data, err := e.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", key, i, err)
		}
		b = append(b, data...)
	}
	return append(b, ']'), nil
}

func appendFields(b []byte, fields []field) ([]byte, error) {
	b = append(b, '{')
	for _, f := range fields {
		if f.zero() {
			continue
		}
		if b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(b, `"`+f.key+`":`...)
		var err error
		switch p := f.at.(type) {
		case *string:
			if b, err = appendText(b, *p); err != nil {
				return nil, fmt.Errorf("%s%w", f.name, err)
			}
		case *time.Duration:
			b = strconv.AppendQuote(b, shortDuration(*p))
		case *map[string]any:
			if b, err = appendValue(b, *p, 0); err != nil {
				return nil, fmt.Errorf("%s%w", f.name, err)
			}
		default:
			b = append(b, f.text()...)
		}
	}
	return append(b, '}'), nil
}

// shortDuration is 30s, 5m and 1h where Duration.String has 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// A member is a name of an object and its value.
type member struct {
	key   string
	value json.RawMessage
}

// membersOf takes an object apart; a name that is given twice is refused,
// which package json would not do.
func membersOf(data []byte) ([]member, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, fmt.Errorf("%w: want an object", ErrInvalid)
	}
	var out []member
	seen := map[string]bool{}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: t.(string)} // package json has seen to it
		if err := dec.Decode(&m.value); err != nil {
			return nil, err
		}
		if seen[m.key] {
			return nil, fmt.Errorf("%w: key %q is given twice", ErrInvalid, m.key)
		}
		seen[m.key] = true
		out = append(out, m)
	}
	return out, nil
}

func parseList[T any](list member, fields func(*T) []field) ([]T, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(list.value, &raw); err != nil {
		return nil, fmt.Errorf("topology: %s: %w: want a list", list.key, ErrInvalid)
	}
	out := make([]T, len(raw))
	var errs []error
	for i, data := range raw {
		errs = append(errs, parseFields(data, fmt.Sprintf("%s[%d]", list.key, i), fields(&out[i])))
	}
	if len(out) == 0 {
		out = nil
	}
	return out, errors.Join(errs...)
}

// parseFields reads an object into fields. element is what errors call it until
// its name is known.
func parseFields(data []byte, element string, fields []field) error {
	members, err := membersOf(data)
	if err != nil {
		return fmt.Errorf("%s: %w", element, err)
	}
	for _, m := range members {
		var name string
		if m.key == fields[0].key && json.Unmarshal(m.value, &name) == nil {
			element += " " + strconv.Quote(name)
		}
	}
	var errs []error
	for _, m := range members {
		if err := parseField(m, fields); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s%w", element, m.key, err))
		}
	}
	return errors.Join(errs...)
}

func parseField(m member, fields []field) error {
	var keys []string
	for _, f := range fields {
		if f.key == m.key {
			return f.parse(m.value)
		}
		keys = append(keys, f.key)
	}
	return fmt.Errorf(": %w: unknown key: want %s", ErrInvalid, strings.Join(keys, ", "))
}

func (f field) parse(data json.RawMessage) error {
	want := func(what string) error {
		shown := string(data)
		if len(shown) > 40 {
			shown = shown[:40] + "…"
		}
		return fmt.Errorf(": %w: %s: want %s", ErrInvalid, shown, what)
	}
	if string(data) == "null" {
		return want("a value, or leave it out")
	}
	switch p := f.at.(type) {
	case *string:
		if json.Unmarshal(data, p) != nil {
			return want("a text")
		}
	case *bool:
		if json.Unmarshal(data, p) != nil {
			return want("true or false")
		}
	case *int:
		if json.Unmarshal(data, p) != nil {
			return want("an integer")
		}
	case *int64:
		if json.Unmarshal(data, p) != nil {
			return want("an integer")
		}
	case *time.Duration:
		var text string
		if json.Unmarshal(data, &text) != nil {
			return want(`a duration like "30s"`)
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return want(`a duration like "30s"`)
		}
		*p = d
	case *map[string]any:
		if data[0] != '{' {
			return want("an object")
		}
		v, err := parseValue(data, 0)
		if err != nil {
			return err
		}
		table, ok := v.(map[string]any)
		if !ok {
			return want("an object of arguments")
		}
		if len(table) > 0 {
			*p = table
		}
	}
	return nil
}
