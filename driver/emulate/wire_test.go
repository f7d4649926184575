package emulate

import (
	"reflect"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
)

func TestWireRoundTrip(t *testing.T) {
	at := time.Unix(1_700_000_000, 0).UTC()
	want := driver.Delivery{
		Exchange: "x",
		Message: driver.Message{
			ID: "id", Key: "a.b", ContentType: "text/plain", ContentEncoding: "gzip", CorrelationID: "c", ReplyTo: "r",
			Type: "t", AppID: "app", UserID: "u", Time: at, Priority: 9, Transient: true,
			TTL: 1500 * time.Millisecond, Delay: 400 * 24 * time.Hour,
			Header: driver.Header{
				"text": "plain", "colon": "int:5", "empty": "", "invalid": "\xff\xfe", "h.t.": "name", "nil": nil, "yes": true, "no": false,
				"int": int64(-5), "float": 0.1, "whole": float64(3), "time": at, "before": time.Unix(-1, 0).UTC(), "bytes": []byte{0, 255}, "none": []byte{},
				"table": map[string]any{"s": "str:s", "bad": "\xff", "\xfe": "key", "strb64:x": "key", "n": nil, "deep": []any{int64(1), map[string]any{"t": at}}},
				"list":  []any{}, "\xff": "a name that is no UTF-8",
			},
		},
	}
	var got driver.Delivery
	for _, f := range AppendFields(nil, &want.Message, "id", "x") {
		if err := SetField(&got, f.Name, f.Value); err != nil {
			t.Error(err)
		}
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	var plain driver.Delivery
	if fields := AppendFields(nil, &plain.Message, "", ""); len(fields) != 0 {
		t.Errorf("a message without properties has the fields %v", fields)
	}
	if err := SetField(&plain, "of a later version", "x"); err != nil || !reflect.DeepEqual(plain, driver.Delivery{}) {
		t.Errorf("an unknown field: %v, %+v", err, plain)
	}
}

// What cannot be read is left out, not half taken.
func TestSetFieldLeavesOut(t *testing.T) {
	for _, f := range []Field{{"time", "soon"}, {"priority", "256"}, {"priority", "-1"}, {"ttl", "-1"}, {"ttl", "1.5"}, {"delay", "99999999999999999999"}, {"t.n", "int:many"}, {"t.n", "odd:1"}, {"t.n", "table:{"}} {
		var d driver.Delivery
		if err := SetField(&d, f.Name, f.Value); err == nil || !reflect.DeepEqual(d, driver.Delivery{}) {
			t.Errorf("%v: error %v, delivery %+v; want an error and nothing set", f, err, d)
		}
	}
}

func FuzzSetField(f *testing.F) {
	for _, s := range [][2]string{
		{"id", "x"}, {"time", "12"}, {"time", "x"}, {"priority", "300"}, {"ttl", "60000"}, {"delay", "9223372036854775807"}, {"h.a", "b"}, {"t.a", "int:5"}, {"t.a", "int:x"}, {"t.", "nil:"},
		{"t.a", "table:{\"a\":\"int:1\"}"}, {"t.a", "list:[\"str:a\",[[]]]"}, {"t.a", "list:{}"}, {"t.a", "table:[]"}, {"t.a", "table:null"},
		{"t.a", "list:[1]"}, {"t.a", "bytes:!"}, {"t.a", "strb64:/w=="}, {"t.a", "float:NaN"}, {"t.a", "time:99999999999999"}, {"t.a", ""},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		var d driver.Delivery
		if err := SetField(&d, name, value); err != nil {
			return
		}
		// What was read can be written, and is read the same.
		var again driver.Delivery
		first := AppendFields(nil, &d.Message, d.Message.ID, d.Exchange)
		for _, field := range first {
			if err := SetField(&again, field.Name, field.Value); err != nil {
				t.Fatalf("%q = %q became %q, which cannot be read: %v", name, value, field, err)
			}
		}
		second := AppendFields(nil, &again.Message, again.Message.ID, again.Exchange)
		if len(first)+len(second) > 0 && !reflect.DeepEqual(first, second) {
			t.Fatalf("%q = %q became %q, then %q", name, value, first, second)
		}
	})
}
