package polymq_test

import (
	"context"
	"encoding/xml"
	"errors"
	"strings"
	"testing"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
)

type order struct {
	Number int
}

var xmlCodec = polymq.NewCodec("application/xml", xml.Marshal, xml.Unmarshal, "text/xml")

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
		{"", inXML, []polymq.Codec{xmlCodec, polymq.JSON}, true},
		{"application/atom+xml", inXML, []polymq.Codec{polymq.JSON, xmlCodec}, true},
		{"text/xml; charset=utf-8", inXML, []polymq.Codec{polymq.JSON, xmlCodec}, true},
		{"text/json", inJSON, nil, false},
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
		if !c.ok && (!polymq.IsPermanent(err) || !errors.Is(err, polymq.ErrUndecodable) || got != 0) {
			t.Errorf("%q %q: %v, want a permanent error that is ErrUndecodable", c.contentType, c.body, err)
		}
	}
}

func TestEncode(t *testing.T) {
	m, err := polymq.Encode(order{7}, polymq.JSON)
	if err != nil || string(m.Body) != `{"Number":7}` || m.ContentType != "application/json" {
		t.Errorf("%+v %v", m, err)
	}
	if _, err := polymq.Encode(func() {}, nil); !errors.Is(err, polymq.ErrInvalid) {
		t.Errorf("a function was encoded: %v", err)
	}
}

func TestNilCodecIsJSON(t *testing.T) {
	m := &polymq.Message{ContentType: "application/json", Body: []byte(`{}`)}
	if _, err := polymq.Decode[order](m, nil); err != nil {
		t.Error(err)
	}
	if _, err := polymq.Decode[order](&polymq.Message{Body: []byte(`{}`)}, nil); err != nil {
		t.Error(err)
	}
}

func TestDecodeSaysWhatItGot(t *testing.T) {
	_, err := polymq.Decode[order](&polymq.Message{ID: "7", ContentType: "application/json", ContentEncoding: "zstd", Body: []byte("(\xb5")})
	if !errors.Is(err, polymq.ErrUndecodable) {
		t.Fatal(err)
	}
	for _, want := range []string{`"7"`, "application/json", "zstd", "2 bytes", "order"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %s: %v", want, err)
		}
	}
}

func TestTypedPublisher(t *testing.T) {
	f := newFake()
	var sent []driver.Message
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		for _, p := range batch {
			sent = append(sent, *p.Message)
			p.Resolve(nil)
		}
	}
	p, err := connect(t, f).Publisher(t.Context(), "x", nil)
	if err != nil {
		t.Fatal(err)
	}
	orders := polymq.NewTypedPublisher[order](p, nil)
	m := polymq.Message{Key: "order.paid", Header: polymq.Header{"h": "v"}}
	if err := orders.Publish(t.Context(), m, order{7}); err != nil {
		t.Fatal(err)
	}
	if len(sent) != 1 || string(sent[0].Body) != `{"Number":7}` || sent[0].ContentType != "application/json" || sent[0].Key != "order.paid" || sent[0].Header["h"] != "v" {
		t.Errorf("sent %+v", sent)
	}
	err = polymq.NewTypedPublisher[func()](p, nil).Publish(t.Context(), m, func() {})
	wantIs(t, err, polymq.ErrInvalid)
	if _, ok := errors.AsType[*polymq.Error](err); !ok || len(sent) != 1 {
		t.Errorf("%T %v, %d sent", err, err, len(sent))
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
