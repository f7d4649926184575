// Package cloudevents has codecs for CloudEvents 1.0, whose values are the events
// of the CloudEvents SDK.
//
//	events := polymq.NewTypedPublisher[event.Event](pub, cloudevents.Binary)
//	err = sub.Run(ctx, polymq.Typed(func(ctx context.Context, d *polymq.Delivery, e event.Event) error {
//		...
//	}, cloudevents.Binary))
//
// Each codec reads both modes. Both are the AMQP binding's (CloudEvents AMQP
// Protocol Binding 1.0.2, with the header for its application properties), on every
// backend alike, since a polymq.Message is AMQP's: what lies in NATS and Redis is
// such a message, as docs/WIRE.md says. The NATS binding knows the structured mode;
// what its later drafts and the SDK's NATS transport write in binary mode, headers
// that begin with "ce-", is read too. Redis has no binding. Listed beside
// polymq.JSON, which takes everything that ends in "+json", put these first.
//
// The message's ID is not the event's: that one is unique within its source only.
package cloudevents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/url"
	"strings"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/cloudevents/sdk-go/v2/types"

	"github.com/polymq/polymq"
)

// Binary writes the event's data as the body, datacontenttype as the content
// type, and every other attribute as a header "cloudEvents:" and its name:
// booleans, integers and bytes as such, the rest as their canonical text, so that
// a time keeps its fractions of a second.
var Binary polymq.Codec = codec{encode: encodeBinary}

// Structured writes the whole event as the body in the JSON event format, whose
// content type is "application/cloudevents+json".
var Structured polymq.Codec = codec{encode: encodeStructured}

const (
	prefix         = "cloudEvents:"
	structuredType = "application/cloudevents+json"
)

// prefixes are what attributes may begin with on receipt: the AMQP binding's two
// ("cloudEvents_" is for JMS), and what NATS clients write.
var prefixes = [...]string{prefix, "cloudEvents_", "ce-"}

type codec struct {
	encode func(m *polymq.Message, e event.Event) error
}

// Encode takes an event.Event or a pointer to one, which must be valid.
func (c codec) Encode(m *polymq.Message, v any) error {
	var e event.Event
	switch v := v.(type) {
	case event.Event:
		e = v
	case *event.Event:
		if v == nil {
			return errors.New("the event is nil")
		}
		e = *v
	default:
		return fmt.Errorf("%T is no event.Event", v)
	}
	if e.SpecVersion() != event.CloudEventsVersionV1 {
		return fmt.Errorf("the event has the version %q: want %s", e.SpecVersion(), event.CloudEventsVersionV1)
	}
	if err := e.Validate(); err != nil {
		return err
	}
	return c.encode(m, e)
}

func encodeStructured(m *polymq.Message, e event.Event) error {
	body, err := json.Marshal(e)
	if err == nil {
		m.Body, m.ContentType = body, structuredType
	}
	return err
}

func encodeBinary(m *polymq.Message, e event.Event) error {
	h := polymq.Header{}
	for key, v := range m.Header {
		if !attribute(key) { // of an earlier event, as m is passed on
			h[key] = v
		}
	}
	h[prefix+"specversion"], h[prefix+"id"], h[prefix+"source"], h[prefix+"type"] = e.SpecVersion(), e.ID(), e.Source(), e.Type()
	if e.Subject() != "" {
		h[prefix+"subject"] = e.Subject()
	}
	if e.DataSchema() != "" {
		h[prefix+"dataschema"] = e.DataSchema()
	}
	if !e.Time().IsZero() {
		h[prefix+"time"] = types.FormatTime(e.Time())
	}
	for name, v := range e.Extensions() {
		switch v := v.(type) {
		case bool, int32, []byte:
			h[prefix+name] = v
		default:
			text, err := types.Format(v)
			if err != nil {
				return fmt.Errorf("the extension %s: %w", name, err)
			}
			h[prefix+name] = text
		}
	}
	m.Header, m.Body, m.ContentType = h, e.Data(), e.DataContentType()
	return nil
}

// Decode reads into an *event.Event, or sets a **event.Event.
func (c codec) Decode(m *polymq.Message, v any) error {
	e := event.New(event.CloudEventsVersionV1)
	read := decodeBinary
	if structured(m) {
		read = decodeStructured
	}
	if err := read(m, &e); err != nil {
		return err
	}
	if e.SpecVersion() != event.CloudEventsVersionV1 {
		return fmt.Errorf("the event has the version %q: want %s", e.SpecVersion(), event.CloudEventsVersionV1)
	}
	if err := e.Validate(); err != nil {
		return err
	}
	switch v := v.(type) {
	case *event.Event:
		*v = e
	case **event.Event:
		*v = &e
	default:
		return fmt.Errorf("%T is no pointer to an event.Event: take the event, and its data with DataAs", v)
	}
	return nil
}

func decodeStructured(m *polymq.Message, e *event.Event) error { return json.Unmarshal(m.Body, e) }

func decodeBinary(m *polymq.Message, e *event.Event) error {
	p := prefixOf(m)
	for key, v := range m.Header {
		name, ok := cut(key, p)
		if !ok {
			continue
		}
		if text, ok := v.(string); ok && p == "ce-" {
			plain, err := url.PathUnescape(text)
			if err != nil {
				return fmt.Errorf("the attribute %s: %w", name, err)
			}
			v = plain
		}
		if err := set(e, name, v); err != nil {
			return fmt.Errorf("the attribute %s: %w", name, err)
		}
	}
	if m.ContentType != "" {
		e.SetDataContentType(m.ContentType)
	}
	if len(m.Body) > 0 {
		e.DataEncoded = bytes.Clone(m.Body)
	}
	return nil
}

func set(e *event.Event, name string, v any) error {
	if name == "time" {
		t, err := types.ToTime(v)
		e.SetTime(t)
		return err
	}
	if t, ok := v.(time.Time); ok {
		v = types.Timestamp{Time: t}
	}
	switch name {
	case "specversion", "id", "source", "type", "subject", "dataschema", "datacontenttype":
		text, err := types.Format(v)
		if err != nil {
			return err
		}
		switch name {
		case "specversion":
			e.SetSpecVersion(text)
		case "id":
			e.SetID(text)
		case "source":
			e.SetSource(text)
		case "type":
			e.SetType(text)
		case "subject":
			e.SetSubject(text)
		case "dataschema":
			e.SetDataSchema(text)
		case "datacontenttype":
			e.SetDataContentType(text)
		}
		return nil
	}
	return e.Context.SetExtension(name, v)
}

// Decodes reports whether the message is an event: in structured mode by its
// content type, in binary mode by the attribute specversion.
func (c codec) Decodes(m *polymq.Message) bool { return structured(m) || prefixOf(m) != "" }

func structured(m *polymq.Message) bool {
	media, _, err := mime.ParseMediaType(m.ContentType)
	return err == nil && media == structuredType
}

// prefixOf is what the attributes begin with; "" where there are none.
func prefixOf(m *polymq.Message) string {
	for _, p := range prefixes {
		for key := range m.Header {
			if name, ok := cut(key, p); ok && name == "specversion" {
				return p
			}
		}
	}
	return ""
}

// attribute reports whether a header is an event's, in any of the forms.
func attribute(key string) bool {
	for _, p := range prefixes {
		if _, ok := cut(key, p); ok {
			return true
		}
	}
	return false
}

// cut is the attribute's name in a header's key. NATS clients may have changed
// the case of "ce-".
func cut(key, p string) (string, bool) {
	if p == "ce-" {
		key = strings.ToLower(key)
	}
	return strings.CutPrefix(key, p)
}
