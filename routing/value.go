package routing

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Values of arguments that JSON has no form for stand in an object with one of
// these as its only name.
const (
	bytesMark = "$bytes" // base64
	timeMark  = "$time"  // RFC 3339
	tableMark = "$table" // a table that would look like one of these
)

// appendValue appends a value of an argument as JSON. Integers and floats stay
// what they are: a float has a point or an exponent.
func appendValue(b []byte, v any, depth int) ([]byte, error) {
	v, err := normal(v, depth)
	if err != nil {
		return nil, err
	}
	return appendNormal(b, v)
}

func appendNormal(b []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v), nil
	case int64:
		return strconv.AppendInt(b, v, 10), nil
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return append(b, text...), nil
	case string:
		return appendText(b, v)
	case []byte:
		return appendMark(b, bytesMark, strconv.Quote(base64.StdEncoding.EncodeToString(v))), nil
	case time.Time:
		return appendMark(b, timeMark, strconv.Quote(v.Format(time.RFC3339))), nil
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendNormal(b, e); err != nil {
				return nil, fmt.Errorf("[%d]%w", i, err)
			}
		}
		return append(b, ']'), nil
	case map[string]any:
		names := slices.Sorted(maps.Keys(v))
		marked := len(names) == 1 && strings.HasPrefix(names[0], "$")
		if marked {
			b = append(b, `{"`+tableMark+`":`...)
		}
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			if b, err = appendText(b, name); err != nil {
				return nil, err
			}
			if b, err = appendNormal(append(b, ':'), v[name]); err != nil {
				return nil, fmt.Errorf("[%s]%w", name, err)
			}
		}
		if marked {
			b = append(b, '}')
		}
		return append(b, '}'), nil
	}
	return append(b, "null"...), nil
}

func appendMark(b []byte, mark, value string) []byte {
	return append(b, `{"`+mark+`":`+value+`}`...)
}

// appendText refuses what JSON would change without a word.
func appendText(b []byte, s string) ([]byte, error) {
	if !utf8.ValidString(s) {
		return nil, fmt.Errorf(": %w: a text that is not UTF-8: use []byte", ErrInvalid)
	}
	data, err := json.Marshal(s)
	return append(b, data...), err
}

// parseValue reads what appendValue wrote.
func parseValue(data json.RawMessage, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf(": %w: nested deeper than %d", ErrInvalid, maxDepth)
	}
	switch data[0] {
	case '{':
		members, err := membersOf(data)
		if err != nil {
			return nil, err
		}
		if len(members) == 1 && strings.HasPrefix(members[0].key, "$") {
			return parseMark(members[0], depth)
		}
		return parseTable(members, depth)
	case '[':
		var raw []json.RawMessage
		if err := json.Unmarshal(data, &raw); err != nil {
			return nil, err
		}
		list := make([]any, len(raw))
		for i, e := range raw {
			var err error
			if list[i], err = parseValue(e, depth+1); err != nil {
				return nil, fmt.Errorf("[%d]%w", i, err)
			}
		}
		return list, nil
	case '"', 't', 'f', 'n':
		var v any
		err := json.Unmarshal(data, &v)
		return v, err
	}
	text := string(data)
	if strings.ContainsAny(text, ".eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf(": %w: the number %s is out of range", ErrInvalid, text)
		}
		return f, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return nil, fmt.Errorf(": %w: the integer %s is out of range: it has 64 bits and a sign", ErrInvalid, text)
	}
	return n, nil
}

func parseTable(members []member, depth int) (map[string]any, error) {
	table := make(map[string]any, len(members))
	for _, m := range members {
		v, err := parseValue(m.value, depth+1)
		if err != nil {
			return nil, fmt.Errorf("[%s]%w", m.key, err)
		}
		table[m.key] = v
	}
	return table, nil
}

func parseMark(m member, depth int) (any, error) {
	if m.key == tableMark {
		members, err := membersOf(m.value)
		if err != nil {
			return nil, err
		}
		return parseTable(members, depth)
	}
	var text string
	if err := json.Unmarshal(m.value, &text); err != nil {
		return nil, fmt.Errorf(": %w: %s: want a text", ErrInvalid, m.key)
	}
	switch m.key {
	case bytesMark:
		v, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf(": %w: %s: not base64", ErrInvalid, m.key)
		}
		return v, nil
	case timeMark:
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			return nil, fmt.Errorf(": %w: %s: %q: want a time like 2006-01-02T15:04:05Z", ErrInvalid, m.key, text)
		}
		return v.UTC(), nil
	}
	return nil, fmt.Errorf(": %w: %s: want %s, %s or %s", ErrInvalid, m.key, bytesMark, timeMark, tableMark)
}
