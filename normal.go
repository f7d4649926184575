package polymq

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

const (
	maxProperty = 255 // bytes of a property or header key: AMQP's short string
	maxDepth    = 32  // of tables and lists in a header value
	// forever is the longest delay: a longer one counts as this, 146 years, so that
	// whoever adds a time or a unit to it does not go over its end.
	forever = time.Duration(math.MaxInt64 / 2)
)

// prepare makes dst what drivers may rely on of m, or says why it cannot be
// sent. Header and body are m's own unless something had to become something
// else. It must not let m escape.
func (c *Conn) prepare(dst *driver.Message, m *Message) error {
	if m == nil {
		return invalid("the message is nil")
	}
	if err := c.check(m); err != nil {
		return err
	}
	header, _, err := normalHeader(m.Header)
	if err != nil {
		return err
	}
	*dst = driver.Message(*m)
	dst.Header, dst.Time, dst.TTL, dst.Delay = header, normalTime(m.Time), milliseconds(m.TTL), milliseconds(min(m.Delay, forever))
	if !m.At.IsZero() {
		dst.Delay, dst.At = milliseconds(min(max(time.Until(m.At), 0), forever)), time.Time{}
	}
	return nil
}

func (c *Conn) check(m *Message) error {
	if err := routing.CheckKey(m.Key); err != nil {
		return fmt.Errorf("routing key: %w", err)
	}
	// One comparison for all of them: a length above 255 has a bit above those.
	if len(m.ID)|len(m.ContentType)|len(m.ContentEncoding)|len(m.CorrelationID)|
		len(m.ReplyTo)|len(m.Type)|len(m.AppID)|len(m.UserID) > maxProperty {
		return longProperty(m)
	}
	if limit := c.features.MaxMessageBytes; limit > 0 && len(m.Body) > limit {
		return fmt.Errorf("%w: the body has %d bytes, this backend takes %d", ErrTooLarge, len(m.Body), limit)
	}
	if err := c.checkDuration("TTL", m.TTL, FeatureTTL); err != nil {
		return err
	}
	if m.TTL > routing.MaxTTL {
		return invalid("TTL: %v: want at most %v", m.TTL, routing.MaxTTL)
	}
	if !m.At.IsZero() {
		switch {
		case m.Delay != 0:
			return invalid("At: set beside Delay: want one of the two")
		case !c.features.Has(FeatureDelay):
			return unsupported("At: this backend does not have the feature %q", FeatureDelay)
		}
	}
	return c.checkDuration("Delay", m.Delay, FeatureDelay)
}

// longProperty names the property that is too long.
func longProperty(m *Message) error {
	for _, p := range [...]struct{ name, value string }{
		{"ID", m.ID},
		{"ContentType", m.ContentType},
		{"ContentEncoding", m.ContentEncoding},
		{"CorrelationID", m.CorrelationID},
		{"ReplyTo", m.ReplyTo},
		{"Type", m.Type},
		{"AppID", m.AppID},
		{"UserID", m.UserID},
	} {
		if len(p.value) > maxProperty {
			return invalid("%s: %d bytes: want at most %d", p.name, len(p.value), maxProperty)
		}
	}
	return nil
}

// milliseconds is d in whole milliseconds, no shorter.
func milliseconds(d time.Duration) time.Duration {
	if r := d % time.Millisecond; r > 0 {
		d += time.Millisecond - r
	}
	return d
}

func (c *Conn) checkDuration(name string, d time.Duration, f Feature) error {
	switch {
	case d < 0:
		return invalid("%s: %v is negative", name, d)
	case d > 0 && !c.features.Has(f):
		return unsupported("%s: this backend does not have the feature %q", name, f)
	}
	return nil
}

// normalHeader is h with values of the types that drivers know; h itself where
// it has no others.
func normalHeader(h Header) (normal Header, changed bool, err error) {
	t, changed, err := normalTable(h, 0)
	if err != nil {
		return nil, false, fmt.Errorf("header %w", err)
	}
	for _, name := range [...]string{"CC", "BCC"} {
		if v, ok := t[name]; ok {
			if err := checkKeys(v); err != nil {
				return nil, false, fmt.Errorf("header %s: %w", name, err)
			}
		}
	}
	return t, changed, nil
}

// checkKeys reports what is wrong with the value of CC or BCC.
func checkKeys(v any) error {
	list, ok := v.([]any)
	if !ok {
		return invalid("%T: want a []any of strings", v)
	}
	for i, e := range list {
		key, ok := e.(string)
		if !ok {
			return invalid("[%d]: %T: want a string", i, e)
		}
		if err := routing.CheckKey(key); err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
	}
	return nil
}

func normalTable(t map[string]any, depth int) (normal map[string]any, changed bool, err error) {
	normal = t
	for k, v := range t {
		if len(k) == 0 || len(k) > maxProperty {
			return nil, false, invalid("key of %d bytes: want 1 to %d", len(k), maxProperty)
		}
		n, other, err := normalValue(v, depth)
		if err != nil {
			return nil, false, at(k, err)
		}
		if !other {
			continue
		}
		if !changed {
			normal, changed = make(map[string]any, len(t)), true
			for k, v := range t {
				normal[k] = v
			}
		}
		normal[k] = n
	}
	return normal, changed, nil
}

func normalList(l []any, depth int) (normal []any, changed bool, err error) {
	normal = l
	for i, v := range l {
		n, other, err := normalValue(v, depth)
		if err != nil {
			return nil, false, at(fmt.Sprintf("[%d]", i), err)
		}
		if !other {
			continue
		}
		if !changed {
			normal, changed = append([]any(nil), l...), true
		}
		normal[i] = n
	}
	return normal, changed, nil
}

// normalValue is v as drivers know it, and whether that is something other
// than v.
func normalValue(v any, depth int) (normal any, changed bool, err error) {
	if depth > maxDepth {
		return nil, false, invalid("nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case nil, string, []byte, bool, int64, float64:
		return v, false, nil
	case int:
		return int64(v), true, nil
	case int32:
		return int64(v), true, nil
	case int16:
		return int64(v), true, nil
	case int8:
		return int64(v), true, nil
	case float32:
		return float64(v), true, nil
	case time.Time:
		n := normalTime(v)
		return n, n != v, nil
	case map[string]any:
		return normalTable(v, depth+1)
	case Header:
		n, _, err := normalTable(v, depth+1)
		return n, true, err
	case []any:
		return normalList(v, depth+1)
	case uint, uint64, uintptr:
		return nil, false, invalid("%T is refused: AMQP has no unsigned integers that every client reads; convert it to int64 (at most %d) or to a string", v, int64(math.MaxInt64))
	}
	return nil, false, invalid("%T is refused: want string, []byte, bool, a signed integer, a float, time.Time, nil, Header or []any of these", v)
}

// normalTime is t in UTC and whole seconds; the zero time stays as it is.
func normalTime(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return time.Unix(t.Unix(), 0).UTC()
}

// place is where in a header something is wrong: "a.b[3]".
type place struct {
	path string
	err  error
}

func (e *place) Error() string { return e.path + ": " + e.err.Error() }
func (e *place) Unwrap() error { return e.err }

func at(step string, err error) error {
	inner, ok := errors.AsType[*place](err)
	if !ok {
		return &place{step, err}
	}
	if inner.path[0] == '[' {
		return &place{step + inner.path, inner.err}
	}
	return &place{step + "." + inner.path, inner.err}
}
