package mem

import (
	"maps"

	"github.com/polymq/polymq/driver"
)

// inline is the longest body that is kept in the same allocation as its message.
const inline = 256

// copyMessage copies what others could change: the body, into space where it
// fits, and the header.
func copyMessage(dst, src *driver.Message, space []byte) {
	*dst = *src
	dst.Header = copyHeader(src.Header)
	switch {
	case len(src.Body) == 0:
		dst.Body = nil
	case len(src.Body) <= len(space):
		n := copy(space, src.Body)
		dst.Body = space[:n:n]
	default:
		dst.Body = append([]byte(nil), src.Body...)
	}
}

// copyHeader is nil where there are no headers.
func copyHeader(h map[string]any) map[string]any {
	if len(h) == 0 {
		return nil
	}
	c := maps.Clone(h)
	for k, v := range c {
		switch v.(type) {
		case []byte, []any, map[string]any:
			c[k] = copyValue(v)
		}
	}
	return c
}

func copyValue(v any) any {
	switch v := v.(type) {
	case []byte:
		return append([]byte{}, v...)
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = copyValue(e)
		}
		return c
	case map[string]any:
		c := make(map[string]any, len(v))
		for k, e := range v {
			c[k] = copyValue(e)
		}
		return c
	}
	return v
}
