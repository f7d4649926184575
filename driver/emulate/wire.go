package emulate

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/polymq/polymq/driver"
)

// Field is one property of a message as text, the form in which stores keep
// it beside the raw body. docs/WIRE.md lists the names.
type Field struct{ Name, Value string }

// Names of fields. A header of the application is "h." and its name when it
// is a string, else "t." and its name, and the value is then a typed text:
// int:5, float:0.5, bool:true, time:1700000000 (Unix seconds), bytes:<base64>,
// nil:, table:{…} or list:[…], the last two JSON whose leaves are typed texts,
// str:… among them (strb64:<base64> where it is not UTF-8, which goes for the
// keys of tables too).
const (
	fieldID              = "id"
	fieldExchange        = "exchange"
	fieldKey             = "key"
	fieldContentType     = "content-type"
	fieldContentEncoding = "content-encoding"
	fieldCorrelationID   = "correlation-id"
	fieldReplyTo         = "reply-to"
	fieldType            = "type"
	fieldAppID           = "app-id"
	fieldUserID          = "user-id"
	fieldTime            = "time"
	fieldPriority        = "priority"
	fieldTTL             = "ttl"
	fieldDelay           = "delay"
	fieldTransient       = "transient"
	prefixText           = "h."
	prefixTyped          = "t."
)

// AppendFields appends the properties of a message that are not zero.
func AppendFields(dst []Field, m *driver.Message, id, exchange string) []Field {
	text := func(name, value string) {
		if value != "" {
			dst = append(dst, Field{name, value})
		}
	}
	text(fieldID, id)
	text(fieldExchange, exchange)
	text(fieldKey, m.Key)
	text(fieldContentType, m.ContentType)
	text(fieldContentEncoding, m.ContentEncoding)
	text(fieldCorrelationID, m.CorrelationID)
	text(fieldReplyTo, m.ReplyTo)
	text(fieldType, m.Type)
	text(fieldAppID, m.AppID)
	text(fieldUserID, m.UserID)
	if !m.Time.IsZero() {
		dst = append(dst, Field{fieldTime, strconv.FormatInt(m.Time.Unix(), 10)})
	}
	if m.Priority != 0 {
		dst = append(dst, Field{fieldPriority, strconv.Itoa(int(m.Priority))})
	}
	if m.TTL != 0 {
		dst = append(dst, Field{fieldTTL, strconv.FormatInt(m.TTL.Milliseconds(), 10)})
	}
	if m.Delay != 0 {
		dst = append(dst, Field{fieldDelay, strconv.FormatInt(m.Delay.Milliseconds(), 10)})
	}
	if m.Transient {
		dst = append(dst, Field{fieldTransient, "true"})
	}
	for name, v := range m.Header {
		if s, ok := v.(string); ok {
			dst = append(dst, Field{prefixText + name, s})
		} else {
			dst = append(dst, Field{prefixTyped + name, typedText(v)})
		}
	}
	return dst
}

// SetField puts a field that was read from the broker where it belongs. Names
// that this version does not know are left out; a value that cannot be read
// is an error.
func SetField(d *driver.Delivery, name, value string) error {
	m := &d.Message
	var err error
	switch name {
	case fieldID:
		m.ID = value
	case fieldExchange:
		d.Exchange = value
	case fieldKey:
		m.Key = value
	case fieldContentType:
		m.ContentType = value
	case fieldContentEncoding:
		m.ContentEncoding = value
	case fieldCorrelationID:
		m.CorrelationID = value
	case fieldReplyTo:
		m.ReplyTo = value
	case fieldType:
		m.Type = value
	case fieldAppID:
		m.AppID = value
	case fieldUserID:
		m.UserID = value
	case fieldTime:
		var s int64
		if s, err = strconv.ParseInt(value, 10, 64); err == nil {
			m.Time = time.Unix(s, 0).UTC()
		}
	case fieldPriority:
		var n uint64
		if n, err = strconv.ParseUint(value, 10, 8); err == nil {
			m.Priority = uint8(n)
		}
	case fieldTTL:
		m.TTL, err = milliseconds(value)
	case fieldDelay:
		m.Delay, err = milliseconds(value)
	case fieldTransient:
		m.Transient = value == "true"
	default:
		var v any
		if strings.HasPrefix(name, prefixText) {
			v = value
		} else if !strings.HasPrefix(name, prefixTyped) {
			return nil
		} else if v, err = parseTyped(value); err != nil {
			break
		}
		if m.Header == nil {
			m.Header = make(map[string]any)
		}
		m.Header[name[len(prefixText):]] = v
	}
	if err != nil {
		return fmt.Errorf("field %q: %w", name, err)
	}
	return nil
}

func milliseconds(value string) (time.Duration, error) {
	n, err := strconv.ParseUint(value, 10, 63)
	if err != nil {
		return 0, err
	}
	return time.Duration(min(n, math.MaxInt64/uint64(time.Millisecond))) * time.Millisecond, nil
}

func typedText(v any) string {
	switch v := v.(type) {
	case nil:
		return "nil:"
	case string:
		if !utf8.ValidString(v) {
			return "strb64:" + base64.StdEncoding.EncodeToString([]byte(v))
		}
		return "str:" + v
	case bool:
		return "bool:" + strconv.FormatBool(v)
	case int64:
		return "int:" + strconv.FormatInt(v, 10)
	case float64:
		return "float:" + strconv.FormatFloat(v, 'g', -1, 64)
	case time.Time:
		return "time:" + strconv.FormatInt(v.Unix(), 10)
	case []byte:
		return "bytes:" + base64.StdEncoding.EncodeToString(v)
	case map[string]any:
		return "table:" + nestedText(v)
	case []any:
		return "list:" + nestedText(v)
	}
	// The core refuses every other type at Publish.
	panic(fmt.Sprintf("emulate: header value of type %T", v))
}

// nestedText is JSON whose leaves are typed texts.
func nestedText(v any) string {
	var tree func(v any) any
	tree = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			t := make(map[string]any, len(v))
			for k, e := range v {
				t[nestedKey(k)] = tree(e)
			}
			return t
		case []any:
			t := make([]any, len(v))
			for i, e := range v {
				t[i] = tree(e)
			}
			return t
		}
		return typedText(v)
	}
	b, err := json.Marshal(tree(v))
	if err != nil {
		panic(err) // strings, maps and slices always marshal
	}
	return string(b)
}

// JSON holds UTF-8 only, so a table's key that is not is written as
// strb64:<base64>, and so is one that would be taken for that.
const prefixKey64 = "strb64:"

func nestedKey(k string) string {
	if utf8.ValidString(k) && !strings.HasPrefix(k, prefixKey64) {
		return k
	}
	return prefixKey64 + base64.StdEncoding.EncodeToString([]byte(k))
}

func parseKey(k string) (string, error) {
	text, ok := strings.CutPrefix(k, prefixKey64)
	if !ok {
		return k, nil
	}
	b, err := base64.StdEncoding.DecodeString(text)
	return string(b), err
}

func parseTyped(s string) (any, error) {
	kind, text, ok := strings.Cut(s, ":")
	if !ok {
		return nil, fmt.Errorf("typed text %.40q has no type", s)
	}
	switch kind {
	case "nil":
		return nil, nil
	case "str":
		return text, nil
	case "strb64":
		b, err := base64.StdEncoding.DecodeString(text)
		return string(b), err
	case "bool":
		return strconv.ParseBool(text)
	case "int":
		return strconv.ParseInt(text, 10, 64)
	case "float":
		return strconv.ParseFloat(text, 64)
	case "time":
		sec, err := strconv.ParseInt(text, 10, 64)
		return time.Unix(sec, 0).UTC(), err
	case "bytes":
		return base64.StdEncoding.DecodeString(text)
	case "table", "list":
		var tree any
		if err := json.Unmarshal([]byte(text), &tree); err != nil {
			return nil, err
		}
		v, err := parseNested(tree)
		if _, table := v.(map[string]any); err == nil && table != (kind == "table") {
			return nil, fmt.Errorf("typed text of type %s holds something else", kind)
		}
		return v, err
	}
	return nil, fmt.Errorf("typed text of unknown type %.40q", kind)
}

func parseNested(v any) (any, error) {
	var err error
	switch v := v.(type) {
	case string:
		return parseTyped(v)
	case map[string]any:
		t := make(map[string]any, len(v))
		for k, e := range v {
			if k, err = parseKey(k); err != nil {
				return nil, err
			}
			if t[k], err = parseNested(e); err != nil {
				return nil, err
			}
		}
		return t, nil
	case []any:
		for i, e := range v {
			if v[i], err = parseNested(e); err != nil {
				return nil, err
			}
		}
		return v, nil
	}
	return nil, fmt.Errorf("a leaf of type %T where a typed text belongs", v)
}
