package polymq

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"strings"
)

// Codec turns values into bodies and back. It must be safe for concurrent use.
type Codec interface {
	// ContentType is the media type of what Marshal makes, without parameters.
	ContentType() string
	Marshal(v any) ([]byte, error)
	Unmarshal(data []byte, v any) error
}

// JSON is the codec of encoding/json, "application/json".
var JSON Codec = jsonCodec{}

type jsonCodec struct{}

func (jsonCodec) ContentType() string                { return "application/json" }
func (jsonCodec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (jsonCodec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// Typed makes a Handler of a function that takes the decoded body. The codec
// is the one of the message's content type, also where the type names it as a
// suffix ("application/vnd.order+json"); the first codec where the message has
// no content type. Default: JSON alone.
//
// A body that cannot be decoded, or whose content type has no codec, is a
// Permanent error: another attempt would not help.
func Typed[T any](fn func(ctx context.Context, d *Delivery, v T) error, codecs ...Codec) Handler {
	if len(codecs) == 0 {
		codecs = []Codec{JSON}
	}
	return func(ctx context.Context, d *Delivery) error {
		codec, err := codecFor(d.ContentType, codecs)
		if err != nil {
			return Permanent(err)
		}
		var v T
		if err := codec.Unmarshal(d.Body, &v); err != nil {
			return Permanent(fmt.Errorf("message %s: cannot decode the body as %s into %T: %w", d.ID, codec.ContentType(), v, err))
		}
		return fn(ctx, d, v)
	}
}

// Encode makes a message of a value: its body and content type. Set the rest
// on the result.
func Encode(v any, codec Codec) (*Message, error) {
	body, err := codec.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("polymq: cannot encode %T as %s: %w", v, codec.ContentType(), err)
	}
	return &Message{Body: body, ContentType: codec.ContentType()}, nil
}

func codecFor(contentType string, codecs []Codec) (Codec, error) {
	if contentType == "" {
		return codecs[0], nil
	}
	for _, c := range codecs {
		if contentType == c.ContentType() {
			return c, nil
		}
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, invalid("content type %q: %w", contentType, err)
	}
	for _, c := range codecs {
		_, subtype, _ := strings.Cut(c.ContentType(), "/")
		if media == c.ContentType() || strings.HasSuffix(media, "+"+subtype) {
			return c, nil
		}
	}
	return nil, unsupported("no codec for content type %q: pass one to Typed", contentType)
}
