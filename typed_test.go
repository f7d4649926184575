package polymq_test

import (
	"context"
	"encoding/xml"
	"errors"
	"testing"

	"github.com/polymq/polymq"
)

type order struct {
	Number int
}

type xmlCodec struct{}

func (xmlCodec) ContentType() string                { return "application/xml" }
func (xmlCodec) Marshal(v any) ([]byte, error)      { return xml.Marshal(v) }
func (xmlCodec) Unmarshal(data []byte, v any) error { return xml.Unmarshal(data, v) }

func TestTyped(t *testing.T) {
	const inJSON, inXML = `{"Number":7}`, `<order><Number>7</Number></order>`
	for _, c := range []struct {
		contentType, body string
		codecs            []polymq.Codec
		ok                bool
	}{
		{"", inJSON, nil, true},
		{"application/json", inJSON, nil, true},
		{"Application/JSON; charset=utf-8", inJSON, nil, true},
		{"application/vnd.order+json", inJSON, nil, true},
		{"application/json", `{"Number":"seven"}`, nil, false},
		{"application/json", ``, nil, false},
		{"application/xml", inXML, nil, false},
		{"application/", inJSON, nil, false},
		{"", inXML, []polymq.Codec{xmlCodec{}, polymq.JSON}, true},
		{"application/atom+xml", inXML, []polymq.Codec{polymq.JSON, xmlCodec{}}, true},
	} {
		var got int
		h := polymq.Typed(func(_ context.Context, d *polymq.Delivery, o order) error {
			got = o.Number
			return nil
		}, c.codecs...)
		err := h(t.Context(), &polymq.Delivery{Message: &polymq.Message{ContentType: c.contentType, Body: []byte(c.body)}})
		if c.ok && (err != nil || got != 7) {
			t.Errorf("%q %q: %v", c.contentType, c.body, err)
		}
		if !c.ok && (!polymq.IsPermanent(err) || got != 0) {
			t.Errorf("%q %q: %v, want a permanent error", c.contentType, c.body, err)
		}
	}
}

func TestEncode(t *testing.T) {
	m, err := polymq.Encode(order{7}, polymq.JSON)
	if err != nil || string(m.Body) != `{"Number":7}` || m.ContentType != "application/json" {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := polymq.Encode(func() {}, polymq.JSON); err == nil {
		t.Error("a function was encoded")
	}
}

func TestSteeringErrors(t *testing.T) {
	cause := errors.New("cause")
	if polymq.Permanent(nil) != nil {
		t.Error("Permanent(nil)")
	}
	if err := polymq.Permanent(cause); !errors.Is(err, cause) || err.Error() != "cause" || !polymq.IsPermanent(err) || polymq.IsPermanent(cause) {
		t.Error(err)
	}
	if err := polymq.RetryAfter(-5, cause); !errors.Is(err, cause) || err.Error() != "cause" {
		t.Error(err)
	} else if d, ok := polymq.RetryDelay(err); d != 0 || !ok {
		t.Error(d, ok)
	}
	if _, ok := polymq.RetryDelay(cause); ok {
		t.Error("a delay out of nothing")
	}
}
