package routing

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// sameArgs compares arguments as the table stores them.
func sameArgs(a, b map[string]any) bool {
	x, err1 := normalArgs(a)
	y, err2 := normalArgs(b)
	if err1 != nil || err2 != nil {
		return reflect.DeepEqual(a, b)
	}
	return canonical(x) == canonical(y)
}

// normalArgs is a copy of args in the types that arrive, or what is wrong with
// them, as a path into them: "[name]: …".
func normalArgs(args map[string]any) (map[string]any, error) {
	if len(args) == 0 {
		return nil, nil
	}
	v, err := normal(args, 0)
	if err != nil {
		return nil, err
	}
	return v.(map[string]any), nil
}

// Deeper nesting than this no broker's client would encode.
const maxDepth = 64

func normal(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf(": %w: nested deeper than %d", ErrInvalid, maxDepth)
	}
	switch v := v.(type) {
	case nil, bool, int64:
		return v, nil
	case string:
		return v, nil
	case []byte:
		return slices.Clone(v), nil
	case int:
		return int64(v), nil
	case int8:
		return int64(v), nil
	case int16:
		return int64(v), nil
	case int32:
		return int64(v), nil
	case float32:
		return normal(float64(v), depth)
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return nil, fmt.Errorf(": %w: %v is not a finite number", ErrInvalid, v)
		}
		return v, nil
	case time.Time:
		return v.UTC().Truncate(time.Second), nil
	case []any:
		list := make([]any, len(v))
		for i := range v {
			var err error
			if list[i], err = normal(v[i], depth+1); err != nil {
				return nil, fmt.Errorf("[%d]%w", i, err)
			}
		}
		return list, nil
	case map[string]any:
		table := make(map[string]any, len(v))
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if err := CheckName(name); err != nil {
				return nil, fmt.Errorf("[%q]: name: %w", name, err)
			}
			var err error
			if table[name], err = normal(v[name], depth+1); err != nil {
				return nil, fmt.Errorf("[%s]%w", name, err)
			}
		}
		return table, nil
	}
	return nil, fmt.Errorf(": %w: type %T: want string, []byte, bool, a signed integer, a float, time.Time, nil, map[string]any or []any", ErrInvalid, v)
}

// canonical is a text that two normal values share only if they are the same.
func canonical(v any) string { return string(appendCanonical(nil, v)) }

func appendCanonical(b []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(b, v)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return strconv.AppendUint(append(b, 'f'), math.Float64bits(v), 16)
	case string:
		return strconv.AppendQuote(b, v)
	case []byte:
		return strconv.AppendQuote(append(b, 'x'), string(v))
	case time.Time:
		return strconv.AppendInt(append(b, '@'), v.Unix(), 10)
	case []any:
		b = append(b, '[')
		for _, e := range v {
			b = append(appendCanonical(b, e), ',')
		}
		return append(b, ']')
	case map[string]any:
		b = append(b, '{')
		for _, name := range slices.Sorted(maps.Keys(v)) {
			b = append(strconv.AppendQuote(b, name), ':')
			b = append(appendCanonical(b, v[name]), ',')
		}
		return append(b, '}')
	}
	return append(b, '-')
}

// cloned is a deep copy of a normal value.
func cloned(args map[string]any) map[string]any {
	if args == nil {
		return nil
	}
	c, _ := normal(args, 0)
	return c.(map[string]any)
}
