// Package protobuf has codecs for Protocol Buffers messages.
//
//	orders := polymq.NewTypedPublisher[*pb.Order](pub, protobuf.Codec)
//	err = sub.Run(ctx, polymq.Typed(func(ctx context.Context, d *polymq.Delivery, o *pb.Order) error {
//		...
//	}, protobuf.Codec, protobuf.JSON))
//
// The type of a value is a pointer to a generated struct. What arrives is chosen
// by content type; polymq.JSON is not for such structs, since encoding/json does
// not write them as other languages expect it.
package protobuf

import (
	"fmt"
	"mime"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/polymq/polymq"
)

// Codec is the binary form, "application/protobuf". It decodes that and
// "application/x-protobuf", "application/vnd.google.protobuf" and
// "application/x-google-protobuf", and types that end in "+protobuf".
//
// The binary form does not say what it holds, and bytes of one type often decode
// as another. So Encode puts the full name of the message's type, as
// "shop.v1.Order", into Message.Type where that is empty; and Decode refuses a
// message whose Type names another type that is linked into the program. Other
// values of Type are not looked at.
var Codec polymq.Codec = codec{
	contentType: "application/protobuf",
	also:        []string{"application/x-protobuf", "application/vnd.google.protobuf", "application/x-google-protobuf"},
	marshal:     proto.Marshal,
	unmarshal:   proto.Unmarshal,
}

// JSON is the JSON form that Protocol Buffers define, "application/json", and on
// receipt also types that end in "+json". Type is as with Codec. Unknown fields
// are an error.
var JSON polymq.Codec = codec{
	contentType: "application/json",
	marshal:     protojson.Marshal,
	unmarshal:   protojson.Unmarshal,
}

type codec struct {
	contentType string
	also        []string
	marshal     func(proto.Message) ([]byte, error)
	unmarshal   func([]byte, proto.Message) error
}

func (c codec) Encode(m *polymq.Message, v any) error {
	value, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("%T is no proto.Message: want a pointer to a generated struct", v)
	}
	if !value.ProtoReflect().IsValid() {
		return fmt.Errorf("the %T is nil", v)
	}
	body, err := c.marshal(value)
	if err != nil {
		return err
	}
	m.Body, m.ContentType = body, c.contentType
	if m.Type == "" {
		m.Type = string(value.ProtoReflect().Descriptor().FullName())
	}
	return nil
}

func (c codec) Decode(m *polymq.Message, v any) error {
	value, err := target(v)
	if err != nil {
		return err
	}
	want := value.ProtoReflect().Descriptor().FullName()
	if name := protoreflect.FullName(m.Type); name != want && name.IsValid() {
		if _, err := protoregistry.GlobalTypes.FindMessageByName(name); err == nil {
			return fmt.Errorf("the message is a %s, not a %s", name, want)
		}
	}
	return c.unmarshal(m.Body, value)
}

// target is the message that v points to; where v points to a nil pointer to a
// message, as it does for a Typed handler, one is made.
func target(v any) (proto.Message, error) {
	if value, ok := v.(proto.Message); ok {
		return value, nil
	}
	if p := reflect.ValueOf(v); p.Kind() == reflect.Pointer && !p.IsNil() && p.Elem().Kind() == reflect.Pointer {
		made := reflect.New(p.Elem().Type().Elem())
		if value, ok := made.Interface().(proto.Message); ok {
			p.Elem().Set(made)
			return value, nil
		}
	}
	return nil, fmt.Errorf("%T is no pointer to a proto.Message: the type to decode is a pointer to a generated struct", v)
}

func (c codec) Decodes(m *polymq.Message) bool {
	media, _, err := mime.ParseMediaType(m.ContentType)
	if err != nil {
		return false
	}
	_, subtype, _ := strings.Cut(c.contentType, "/")
	return media == c.contentType || slices.Contains(c.also, media) || strings.HasSuffix(media, "+"+subtype)
}
