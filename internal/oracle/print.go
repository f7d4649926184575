package oracle

import (
	"fmt"
	"go/format"
	"reflect"
	"slices"
	"strings"
	"time"
)

// goTest is a test that plays a script on one backend.
func goTest(name, backend string, s Script) string {
	text := fmt.Sprintf("func Test%s(t *testing.T) {\n\treplay(t, %q, %s)\n}\n", name, backend, goValue(reflect.ValueOf(s)))
	pretty, err := format.Source([]byte(text))
	if err != nil {
		return text
	}
	return string(pretty)
}

// goValue writes a value as Go source, without fields that are zero.
func goValue(v reflect.Value) string {
	switch v.Type() {
	case reflect.TypeFor[time.Duration]():
		return duration(time.Duration(v.Int()))
	case reflect.TypeFor[time.Time]():
		return fmt.Sprintf("time.Unix(%d, 0).UTC()", v.Interface().(time.Time).Unix())
	case reflect.TypeFor[[]byte]():
		return fmt.Sprintf("[]byte(%q)", v.Bytes())
	}
	switch v.Kind() {
	case reflect.Interface:
		if v.IsNil() {
			return "nil"
		}
		switch e := v.Elem(); e.Type() {
		case reflect.TypeFor[int64](), reflect.TypeFor[float64]():
			return fmt.Sprintf("%s(%v)", e.Type(), e.Interface())
		default:
			return goValue(e)
		}
	case reflect.Struct:
		var b strings.Builder
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				if b.Len() > 0 {
					b.WriteString(", ")
				}
				fmt.Fprintf(&b, "%s: %s", v.Type().Field(i).Name, goValue(f))
			}
		}
		return typeName(v.Type()) + "{" + b.String() + "}"
	case reflect.Slice:
		var b strings.Builder
		ops := v.Type() == reflect.TypeFor[[]Op]()
		for i := range v.Len() {
			if ops {
				b.WriteString("\n")
			} else if i > 0 {
				b.WriteString(", ")
			}
			e := v.Index(i)
			text := goValue(e)
			if e.Kind() == reflect.Struct {
				text = strings.TrimPrefix(text, typeName(e.Type())) // as gofmt -s does
			}
			b.WriteString(text)
			if ops {
				b.WriteString(",")
			}
		}
		if ops {
			b.WriteString("\n")
		}
		return typeName(v.Type()) + "{" + b.String() + "}"
	case reflect.Map:
		var parts []string
		for _, k := range v.MapKeys() {
			parts = append(parts, fmt.Sprintf("%q: %s", k.String(), goValue(v.MapIndex(k))))
		}
		slices.Sort(parts)
		return typeName(v.Type()) + "{" + strings.Join(parts, ", ") + "}"
	case reflect.String:
		return fmt.Sprintf("%q", v.String())
	}
	return fmt.Sprintf("%#v", v.Interface())
}

// typeName is a type as this package's source writes it.
func typeName(t reflect.Type) string {
	name := strings.ReplaceAll(t.String(), "oracle.", "")
	name = strings.ReplaceAll(name, "interface {}", "any")
	return strings.ReplaceAll(name, "driver.Header", "polymq.Header")
}

func duration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%d * time.Hour", d/time.Hour)
	case d%time.Second == 0:
		return fmt.Sprintf("%d * time.Second", d/time.Second)
	}
	return fmt.Sprintf("%d * time.Millisecond", d/time.Millisecond)
}
