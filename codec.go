package polymq

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"slices"
	"strings"
)

// ErrUndecodable is the error of a message that no codec can decode, or that
// middleware.Decompress cannot. Typed makes a Permanent error of it.
var ErrUndecodable = errors.New("the message cannot be decoded")

// Codec turns values into messages and back. JSON is one; NewCodec makes one of
// two functions; packages below codec have others. It must be safe for
// concurrent use.
type Codec interface {
	// Encode puts v into m: the body, the content type, and what else of a
	// message the codec's form uses. It sets fields of m; a header that is
	// there it replaces by a changed copy.
	Encode(m *Message, v any) error
	// Decode reads m into v, a pointer. It leaves m as it is.
	Decode(m *Message, v any) error
	// Decodes reports whether m is in the codec's form. As a rule the content
	// type tells.
	Decodes(m *Message) bool
}

// JSON is the codec of encoding/json: "application/json", and on receipt also
// what ends in "+json".
var JSON = NewCodec("application/json", json.Marshal, json.Unmarshal)

// NewCodec makes a codec of two functions on bodies. contentType is the media
// type of what marshal makes. The codec decodes messages of that type, whatever
// its parameters, and of those in also; and of every type that names it as its
// suffix, as "application/vnd.order+xml" does with "application/xml".
//
//	NewCodec("application/xml", xml.Marshal, xml.Unmarshal, "text/xml")
func NewCodec(contentType string, marshal func(v any) ([]byte, error), unmarshal func(data []byte, v any) error, also ...string) Codec {
	_, subtype, _ := strings.Cut(contentType, "/")
	return &bodyCodec{contentType, "+" + subtype, also, marshal, unmarshal}
}

type bodyCodec struct {
	contentType string
	suffix      string
	also        []string
	marshal     func(v any) ([]byte, error)
	unmarshal   func(data []byte, v any) error
}

func (c *bodyCodec) Encode(m *Message, v any) error {
	body, err := c.marshal(v)
	if err == nil {
		m.Body, m.ContentType = body, c.contentType
	}
	return err
}

func (c *bodyCodec) Decode(m *Message, v any) error { return c.unmarshal(m.Body, v) }

func (c *bodyCodec) Decodes(m *Message) bool {
	if m.ContentType == c.contentType {
		return true
	}
	media, _, err := mime.ParseMediaType(m.ContentType)
	return err == nil && (media == c.contentType || strings.HasSuffix(media, c.suffix) || slices.Contains(c.also, media))
}

// Encode makes a message of a value: its body, its content type, and what else
// the codec uses. Set the rest on the result. A nil codec is JSON.
func Encode(v any, codec Codec) (*Message, error) {
	m := new(Message)
	if err := encode(m, v, codec); err != nil {
		return nil, fmt.Errorf("polymq: %w", err)
	}
	return m, nil
}

// orJSON is codec, or JSON in the place of none.
func orJSON(codec Codec) Codec {
	if codec == nil {
		return JSON
	}
	return codec
}

func encode(m *Message, v any, codec Codec) error {
	codec = orJSON(codec)
	if err := codec.Encode(m, v); err != nil {
		return invalid("cannot encode a %T: %w", v, err)
	}
	return nil
}

// Decode reads a message with the first of the codecs that decodes it, or, where
// none does and the message has no content type, with the first. A nil one is
// JSON. Default: JSON alone. The error wraps ErrUndecodable, and says what the
// message claims to be.
func Decode[T any](m *Message, codecs ...Codec) (T, error) {
	var v T
	_, err := decode(m, &v, codecs)
	return v, err
}

// decode reads m into v and says with which codec.
func decode(m *Message, v any, codecs []Codec) (Codec, error) {
	if len(codecs) == 0 {
		codecs = []Codec{JSON}
	}
	i := slices.IndexFunc(codecs, func(c Codec) bool { return orJSON(c).Decodes(m) })
	if i < 0 && m.ContentType == "" {
		i = 0
	}
	if i < 0 {
		return nil, fmt.Errorf("%w: message %q: no codec for content type %q", ErrUndecodable, m.ID, m.ContentType)
	}
	codec := orJSON(codecs[i])
	if err := codec.Decode(m, v); err != nil {
		claims := fmt.Sprintf("content type %q", m.ContentType)
		if m.ContentEncoding != "" {
			claims += fmt.Sprintf(", content encoding %q", m.ContentEncoding)
		}
		return nil, fmt.Errorf("%w: message %q (%s, %d bytes) into %T: %w", ErrUndecodable, m.ID, claims, len(m.Body), v, err)
	}
	return codec, nil
}
