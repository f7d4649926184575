package cloudevents_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/event"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/codec/cloudevents"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

var noon = time.Date(2026, 11, 29, 12, 0, 0, 123456789, time.UTC)

// paid is an event with every kind of attribute.
func paid(t testing.TB) event.Event {
	t.Helper()
	e := event.New()
	e.SetID("1")
	e.SetSource("/shop")
	e.SetType("order.paid")
	e.SetSubject("order/7")
	e.SetDataSchema("http://example.com/order.json")
	e.SetTime(noon)
	e.SetExtension("flag", true)
	e.SetExtension("count", 7)
	e.SetExtension("bytes", []byte{0, 1})
	e.SetExtension("text", "grün, 100%")
	e.SetExtension("since", noon)
	if err := e.SetData(event.ApplicationJSON, map[string]int{"total": 17}); err != nil {
		t.Fatal(err)
	}
	return e
}

func encode(t testing.TB, v any, c polymq.Codec) *polymq.Message {
	t.Helper()
	m, err := polymq.Encode(v, c)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The AMQP binding's names and values, as section 3.1.3 of it has them.
func TestBinaryMode(t *testing.T) {
	m := encode(t, paid(t), cloudevents.Binary)
	for name, want := range map[string]any{
		"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.paid", "subject": "order/7",
		"dataschema": "http://example.com/order.json", "time": "2026-11-29T12:00:00.123456789Z",
		"flag": true, "count": int32(7), "text": "grün, 100%", "since": "2026-11-29T12:00:00.123456789Z",
	} {
		if got := m.Header["cloudEvents:"+name]; got != want {
			t.Errorf("%s is %T %v, want %v", name, got, got, want)
		}
	}
	if m.ContentType != "application/json" || string(m.Body) != `{"total":17}` || len(m.Header) != 12 {
		t.Errorf("%+v", m)
	}
}

// An event that is put into a message which carried another has nothing of that.
func TestEncodeOverAnotherEvent(t *testing.T) {
	m := encode(t, paid(t), cloudevents.Binary)
	m.Header["ce-specversion"], m.Header["ce-subject"], m.Header["other"] = "1.0", "old", "header"
	e := event.New()
	e.SetID("2")
	e.SetSource("/shop")
	e.SetType("order.shipped")
	if err := cloudevents.Binary.Encode(m, e); err != nil {
		t.Fatal(err)
	}
	got, err := polymq.Decode[event.Event](m, cloudevents.Binary)
	if err != nil || got.String() != e.String() {
		t.Errorf("got  %v, %v\nwant %v", got, err, e)
	}
	if m.Header["other"] != "header" {
		t.Error("another header was taken away")
	}
	for key := range m.Header {
		if strings.HasPrefix(key, "ce-") {
			t.Errorf("%s stays", key)
		}
	}
}

func TestStructuredMode(t *testing.T) {
	m := encode(t, paid(t), cloudevents.Structured)
	var fields map[string]any
	if err := json.Unmarshal(m.Body, &fields); err != nil {
		t.Fatal(err)
	}
	data, _ := fields["data"].(map[string]any)
	if m.ContentType != "application/cloudevents+json" || fields["id"] != "1" || data["total"] != 17.0 {
		t.Errorf("%s %s", m.ContentType, m.Body)
	}
}

// Events of others.
func TestForeignEvents(t *testing.T) {
	for name, m := range map[string]*polymq.Message{
		"AMQP with native types": {ContentType: "text/plain", Body: []byte("17"), Header: polymq.Header{"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/s", "cloudEvents:type": "t",
			"cloudEvents:time": noon.Truncate(time.Second), "cloudEvents:count": int64(7), "cloudEvents:text": "a b", "other": "header"}},
		"JMS": {ContentType: "text/plain", Body: []byte("17"), Header: polymq.Header{"cloudEvents_specversion": "1.0", "cloudEvents_id": "1", "cloudEvents_source": "/s", "cloudEvents_type": "t",
			"cloudEvents_time": "2026-11-29T12:00:00Z", "cloudEvents_count": "7", "cloudEvents_text": "a b"}},
		"NATS": {Body: []byte("17"), Header: polymq.Header{"Ce-Specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t",
			"ce-time": "2026-11-29T12:00:00Z", "ce-datacontenttype": "text/plain", "ce-count": "7", "ce-text": "a%20b"}},
		"structured": {ContentType: "application/cloudevents+json; charset=UTF-8",
			Body: []byte(`{"specversion":"1.0","id":"1","source":"/s","type":"t","time":"2026-11-29T12:00:00Z","count":7,"text":"a b","datacontenttype":"text/plain","data":"17"}`)},
	} {
		for _, c := range []polymq.Codec{cloudevents.Binary, cloudevents.Structured} {
			e, err := polymq.Decode[*event.Event](m, c, polymq.JSON)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			var count json.Number
			if c, err := json.Marshal(e.Extensions()["count"]); err == nil {
				count = json.Number(strings.Trim(string(c), `"`))
			}
			if e.ID() != "1" || e.Source() != "/s" || e.Type() != "t" || !e.Time().Equal(noon.Truncate(time.Second)) || e.DataContentType() != "text/plain" || string(e.Data()) != "17" || count != "7" || e.Extensions()["text"] != "a b" || len(e.Extensions()) != 2 {
				t.Errorf("%s: %v", name, e)
			}
		}
	}
}

func TestNoEvents(t *testing.T) {
	head := func(more ...any) polymq.Header {
		h := polymq.Header{"cloudEvents:specversion": "1.0", "cloudEvents:id": "1", "cloudEvents:source": "/s", "cloudEvents:type": "t"}
		for i := 0; i < len(more); i += 2 {
			h["cloudEvents:"+more[i].(string)] = more[i+1]
		}
		return h
	}
	for name, m := range map[string]*polymq.Message{
		"a plain message": {ContentType: "application/json", Body: []byte("{}")},
		"no id":           {Header: head("id", "")},
		"a bad time":      {Header: head("time", "noon")},
		"a bad name":      {Header: head("not_a_name", "x")},
		"a list":          {Header: head("list", []any{"x"})},
		"version 0.3":     {Header: head("specversion", "0.3")},
		"version 7":       {Header: head("specversion", "7")},
		"garbage":         {ContentType: "application/cloudevents+json", Body: []byte(`{"specversion":"1.0"`)},
		"incomplete":      {ContentType: "application/cloudevents+json", Body: []byte(`{"specversion":"1.0"}`)},
		"avro":            {ContentType: "application/cloudevents+avro"},
	} {
		if e, err := polymq.Decode[event.Event](m, cloudevents.Binary); !errors.Is(err, polymq.ErrUndecodable) {
			t.Errorf("%s: %v %v", name, e, err)
		}
	}
	if _, err := polymq.Decode[string](encode(t, paid(t), cloudevents.Binary), cloudevents.Binary); !errors.Is(err, polymq.ErrUndecodable) {
		t.Errorf("into a string: %v", err)
	}
	var none *event.Event
	for _, v := range []any{event.New(), event.Event{}, none, "an event"} {
		if _, err := polymq.Encode(v, cloudevents.Structured); !errors.Is(err, polymq.ErrInvalid) {
			t.Errorf("%T %v: %v", v, v, err)
		}
	}
}

// Both modes pass every backend without loss.
func TestEventsOnEveryBackend(t *testing.T) {
	for _, scheme := range []string{"mem", "amqp", "nats", "redis"} {
		t.Run(scheme, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			conn, err := polymq.Open(ctx, testbroker.URL(t, scheme), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close(context.Background())
			if err := conn.Declare(ctx, routing.Topology{Queues: []routing.Queue{{Name: "q"}}}); err != nil {
				t.Fatal(err)
			}
			pub, err := conn.Publisher(ctx, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range []polymq.Codec{cloudevents.Binary, cloudevents.Structured} {
				if err := polymq.NewTypedPublisher[event.Event](pub, c).Publish(ctx, polymq.Message{Key: "q"}, paid(t)); err != nil {
					t.Fatal(err)
				}
			}
			sub, err := conn.Subscriber(ctx, "q", nil)
			if err != nil {
				t.Fatal(err)
			}
			want := paid(t).String()
			run, stop := context.WithCancel(ctx)
			got := 0
			err = sub.Run(run, polymq.Typed(func(_ context.Context, d *polymq.Delivery, e event.Event) error {
				// Structured mode makes text of bytes and times.
				if d.ContentType != "application/cloudevents+json" && e.String() != want {
					t.Errorf("got  %s\nwant %s", e, want)
				}
				if !e.Time().Equal(noon) || string(e.Data()) != `{"total":17}` || e.Subject() != "order/7" || e.Extensions()["text"] != "grün, 100%" {
					t.Errorf("got %s", e)
				}
				if got++; got == 2 {
					stop()
				}
				return nil
			}, cloudevents.Binary, polymq.JSON))
			if err != nil || got != 2 {
				t.Errorf("%d events, %v", got, err)
			}
		})
	}
}
