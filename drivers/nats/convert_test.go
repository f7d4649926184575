package nats

import (
	"reflect"
	"strings"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/driver/emulate"
)

func TestConvert(t *testing.T) {
	m := &driver.Message{
		ID: "id", Key: "a.b:c\r\n d ", Body: []byte("body"), ContentType: "text/plain; charset=\"ü\"", Priority: 3, Transient: true,
		Time:   time.Unix(1700000000, 0).UTC(),
		Header: map[string]any{"X-Case": "1", "x-case": "2", "ü:\r\n": " padded ", "100%": "50%41", "n": int64(5), "": "", "(paren)": nil},
	}
	for _, dedup := range []string{"id", "another\nid"} {
		p := &emulate.Parcel{Publishing: &driver.Publishing{Message: m, ID: "id"}, DedupID: dedup, Exchange: "köln"}
		w := writers.Get().(*writer)
		w.write(p)
		msg := w.write(p) // a second time in the same writer
		got := &natsgo.Msg{Header: natsgo.Header{}, Data: msg.Data}
		for name, vs := range msg.Header {
			for i := range len(name) {
				if !nameSafe(name[i]) && name[i] != '%' {
					t.Errorf("header name %q", name)
				}
			}
			if strings.TrimSpace(vs[0]) != vs[0] || strings.ContainsAny(vs[0], "\r\n") {
				t.Errorf("header value %q", vs[0])
			}
			got.Header[name] = append([]string(nil), vs...)
		}
		w.release()
		var d driver.Delivery
		if err := read(&d, got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&d.Message, m) || d.Exchange != "köln" {
			t.Errorf("read %+v, want %+v", d.Message, m)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("plain")
	f.Add(" %41\r\nü ")
	f.Fuzz(func(t *testing.T, s string) {
		for _, safe := range []func(byte) bool{nameSafe, valueSafe} {
			e := escape(s, safe)
			if unescape(e) != s {
				t.Errorf("%q became %q, and that %q", s, e, unescape(e))
			}
			if strings.TrimSpace(e) != e || strings.ContainsAny(e, "\r\n") {
				t.Errorf("%q became %q", s, e)
			}
		}
		unescape(s)
	})
}

func TestTokens(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"default", "Default", "/", "a.b", "a_b", "a b", "ü", "_hff", "h", "", strings.Repeat("x", 64), strings.Repeat("x", 65), strings.Repeat("ü", 100), "_", "*", ">"} {
		token := token(name)
		if token == "" || len(token) > maxToken || strings.ContainsAny(token, " .*>\r\n\t/\\") {
			t.Errorf("%q became %q", name, token)
		}
		if other, taken := seen[token]; taken {
			t.Errorf("%q and %q became %q", name, other, token)
		}
		seen[token] = name
	}
}

func TestParseAck(t *testing.T) {
	for in, want := range map[string]uint64{
		`{"stream":"POLYMQ_x", "seq":12}`:                     12,
		`{"stream":"POLYMQ_x","seq":7,"duplicate": true}`:     7,
		`{"stream":"X","domain":"hub", "seq":3}`:              3,
		`{"error":{"code":400,"err_code":10071},"stream":""}`: 0,
		`{"stream":"X"}`: 0, ``: 0, `junk`: 0, `{"stream":"X","seq":`: 0,
	} {
		if seq, err := parseAck([]byte(in)); seq != want || (err == nil) != (want > 0) {
			t.Errorf("%s: %d, %v", in, seq, err)
		}
	}
	if _, err := parseAck([]byte(`{"error":{"code":400,"err_code":10071,"description":"d"}}`)); !hasCode(err, codeWrongLastSequence) {
		t.Error(err)
	}
}

func TestParseAckSubject(t *testing.T) {
	for in, want := range map[string]ackSubject{
		"$JS.ACK.S.c.2.17.9.1700000000.5":             {2, 17, 9, 1700000000},
		"$JS.ACK.dom.hash.S.c.2.17.9.1700000000.5":    {2, 17, 9, 1700000000},
		"$JS.ACK._.hash.S.c.3.18.9.1700000000.5.rand": {3, 18, 9, 1700000000},
		"$JS.ACK.S.c.x.17.9.1.5":                      {},
		"$JS.ACK":                                     {},
		"$JS.ACK." + strings.Repeat("a.", 40):         {},
	} {
		a, ok := parseAckSubject(in)
		if ok != (want.seq > 0) || ok && a != want {
			t.Errorf("%s: %+v %v", in, a, ok)
		}
	}
}
