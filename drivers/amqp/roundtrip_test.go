package amqp

import (
	"crypto/rand"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

func rndID() string { return rand.Text() }

func TestRoundTrip(t *testing.T) {
	c := open(t)
	for _, kind := range []string{"quorum", "classic"} {
		check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: kind, Type: kind}}}))
		want := driver.Message{
			ID: "id-1", Key: kind, Body: []byte("body"), ContentType: "text/plain", ContentEncoding: "utf-8",
			CorrelationID: "c", ReplyTo: "r", Type: "t", AppID: "app", UserID: c.settings.user,
			Time: time.Unix(1700000000, 0).UTC(), Priority: 3, Transient: true,
			Header: map[string]any{
				"s": "text", "b": []byte{0, 255}, "t": true, "i": int64(-5), "f": 0.5, "n": nil,
				"at": time.Unix(1600000000, 0).UTC(), "m": map[string]any{"x": int64(1), "l": []any{"a", int64(2), nil}},
				"l": []any{map[string]any{"deep": true}}, "x-death": []any{map[string]any{"queue": "elsewhere", "count": int64(3)}},
			},
		}
		p := publisherOf(t, c, "")
		check(t, publish(t, p, want))
		s := subscribe(t, c, kind, 10)
		d := receive(t, s)
		if !reflect.DeepEqual(d.Message, want) {
			t.Errorf("%s: got %#v\nwant %#v", kind, d.Message, want)
		}
		if d.Exchange != "" || d.Queue != kind || d.Redelivered {
			t.Errorf("%s: delivery %+v", kind, d)
		}
		settle(t, s, d, driver.Nack)
		d = receive(t, s)
		want1 := map[string]int{"quorum": 2, "classic": 0}[kind]
		if !d.Redelivered || d.Attempt != want1 {
			t.Errorf("%s: redelivered %v, attempt %d", kind, d.Redelivered, d.Attempt)
		}
		settle(t, s, d, driver.Ack)
		if err := publish(t, p, driver.Message{Key: "nowhere"}); !errors.Is(err, driver.ErrUnroutable) {
			t.Errorf("unroutable: %v", err)
		}
		if err := publish(t, publisherOf(t, c, "none"), driver.Message{Key: kind}); !errors.Is(err, driver.ErrNotFound) {
			t.Errorf("missing exchange: %v", err)
		}
		check(t, publish(t, p, driver.Message{Key: kind}))
		d = receive(t, s)
		if d.Message.Header != nil || d.Message.Transient {
			t.Errorf("plain message: %+v", d.Message)
		}
		t.Logf("%s: first attempt %d", kind, d.Attempt)
		settle(t, s, d, driver.Reject)
		check(t, s.Close(ctxOf(t)))
	}
}
