package driver

import (
	"maps"
	"slices"
	"time"
)

// Header holds a message's headers. Publish accepts as values string, []byte,
// bool, the signed integers, float32, float64, time.Time, nil, and Header,
// map[string]any and []any of these; it refuses everything else.
//
// Whatever was published, a delivered header holds only string, []byte, bool,
// int64, float64, time.Time (UTC, whole seconds), nil, map[string]any and
// []any. Keys are 1 to 255 bytes.
//
// Get, Set and Keys make it a carrier for OpenTelemetry's propagators. Like
// any map, a Header must not be changed while others read it.
type Header map[string]any

// Get is the value of key if it is a string, else "".
func (h Header) Get(key string) string {
	s, _ := h[key].(string)
	return s
}

// Set sets key to value. It panics on a nil Header, as any map does.
func (h Header) Set(key, value string) { h[key] = value }

// Keys are the keys, sorted.
func (h Header) Keys() []string { return slices.Sorted(maps.Keys(h)) }

// String is the value of key if it is a string.
func (h Header) String(key string) (string, bool) {
	s, ok := h[key].(string)
	return s, ok
}

// Int is the value of key if it is a signed integer.
func (h Header) Int(key string) (int64, bool) {
	switch v := h[key].(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case int32:
		return int64(v), true
	case int16:
		return int64(v), true
	case int8:
		return int64(v), true
	}
	return 0, false
}

// Float is the value of key if it is a float.
func (h Header) Float(key string) (float64, bool) {
	switch v := h[key].(type) {
	case float64:
		return v, true
	case float32:
		return float64(v), true
	}
	return 0, false
}

// Bool is the value of key if it is a bool.
func (h Header) Bool(key string) (value, ok bool) {
	value, ok = h[key].(bool)
	return value, ok
}

// Time is the value of key if it is a time.
func (h Header) Time(key string) (time.Time, bool) {
	t, ok := h[key].(time.Time)
	return t, ok
}

// Bytes is the value of key if it is a byte slice.
func (h Header) Bytes(key string) ([]byte, bool) {
	b, ok := h[key].([]byte)
	return b, ok
}

// Table is the value of key if it is a table.
func (h Header) Table(key string) (Header, bool) {
	switch v := h[key].(type) {
	case map[string]any:
		return v, true
	case Header:
		return v, true
	}
	return nil, false
}

// List is the value of key if it is a list.
func (h Header) List(key string) ([]any, bool) {
	l, ok := h[key].([]any)
	return l, ok
}
