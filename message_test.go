package polymq_test

import (
	"context"
	"errors"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/routing"
)

// sent is m as the driver sees it.
func sent(t *testing.T, m *polymq.Message) (*driver.Message, error) {
	t.Helper()
	f := newFake()
	var got *driver.Message
	f.publish = func(_ context.Context, batch []*driver.Publishing, _ bool) {
		m := *batch[0].Message // which the driver has until the outcome
		got = &m
		batch[0].Resolve(nil)
	}
	err := publisher(t, f, nil).Publish(t.Context(), m)
	return got, err
}

func TestHeaderIsNormalised(t *testing.T) {
	at := time.Date(2026, 5, 6, 7, 8, 9, 123, time.FixedZone("", 7200))
	utc := time.Date(2026, 5, 6, 5, 8, 9, 0, time.UTC)
	header := func() polymq.Header {
		return polymq.Header{
			"string": "s", "bytes": []byte("b"), "bool": true, "nil": nil, "float64": 1.5, "int64": int64(1),
			"int": -1, "int8": int8(-8), "int16": int16(-16), "int32": int32(-32), "float32": float32(0.5), "time": at,
			"table": polymq.Header{"n": 1}, "map": map[string]any{"list": []any{1, polymq.Header{}}},
			"CC": []any{"a", "b"},
		}
	}
	h := header()
	m := &polymq.Message{Header: h, Time: at}
	got, err := sent(t, m)
	if err != nil {
		t.Fatal(err)
	}
	want := driver.Header{
		"string": "s", "bytes": []byte("b"), "bool": true, "nil": nil, "float64": 1.5, "int64": int64(1),
		"int": int64(-1), "int8": int64(-8), "int16": int64(-16), "int32": int64(-32), "float32": 0.5, "time": utc,
		"table": map[string]any{"n": int64(1)}, "map": map[string]any{"list": []any{int64(1), map[string]any{}}},
		"CC": []any{"a", "b"},
	}
	if !reflect.DeepEqual(got.Header, want) {
		t.Errorf("got  %#v\nwant %#v", got.Header, want)
	}
	if got.Time != utc {
		t.Errorf("time %v", got.Time)
	}
	if !reflect.DeepEqual(h, header()) || m.Time != at {
		t.Error("the caller's message was changed")
	}
}

func TestNothingIsCopiedForNothing(t *testing.T) {
	m := &polymq.Message{
		Header: polymq.Header{"a": "b", "t": map[string]any{"l": []any{int64(1)}}},
		Body:   []byte("body"),
		Time:   time.Unix(5, 0).UTC(),
	}
	got, err := sent(t, m)
	if err != nil {
		t.Fatal(err)
	}
	if reflect.ValueOf(got.Header).Pointer() != reflect.ValueOf(m.Header).Pointer() {
		t.Error("a header that needed nothing was copied")
	}
	if &got.Body[0] != &m.Body[0] {
		t.Error("the body was copied")
	}
}

// A delay without end must not come out as none.
func TestDelaysWithoutEnd(t *testing.T) {
	for name, m := range map[string]*polymq.Message{
		"Delay": {Delay: math.MaxInt64},
		"At":    {At: time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC)},
	} {
		got, err := sent(t, m)
		if err != nil {
			t.Fatal(name, err)
		}
		if got.Delay < 100*365*24*time.Hour || got.Delay > math.MaxInt64-time.Duration(time.Now().UnixNano()) {
			t.Errorf("%s: the driver was given the delay %v", name, got.Delay)
		}
	}
	f := newFake()
	f.deliver("1")
	d, err := subscriber(t, f, nil).Receive(t.Context())
	if err == nil {
		err = d.Nack(t.Context(), math.MaxInt64)
	}
	if err != nil {
		t.Fatal(err)
	}
	if delay := f.settlements()[0].Delay; delay+time.Hour < delay {
		t.Errorf("Nack: the driver was given the delay %v", delay)
	}
}

func TestIllegalMessages(t *testing.T) {
	long := strings.Repeat("x", 256)
	cycle := map[string]any{}
	cycle["self"] = cycle
	for name, c := range map[string]struct {
		m    polymq.Message
		text string
	}{
		"key":            {polymq.Message{Key: "a\x00"}, "routing key"},
		"long key":       {polymq.Message{Key: long}, "routing key"},
		"long ID":        {polymq.Message{ID: long}, "ID"},
		"long type":      {polymq.Message{Type: long}, "Type"},
		"negative TTL":   {polymq.Message{TTL: -1}, "TTL"},
		"negative delay": {polymq.Message{Delay: -1}, "Delay"},
		"uint64":         {polymq.Message{Header: polymq.Header{"n": uint64(1)}}, "header n: "},
		"uint8":          {polymq.Message{Header: polymq.Header{"n": uint8(1)}}, "header n: "},
		"struct":         {polymq.Message{Header: polymq.Header{"n": struct{}{}}}, "header n: "},
		"strings":        {polymq.Message{Header: polymq.Header{"n": []string{"a"}}}, "header n: "},
		"named":          {polymq.Message{Header: polymq.Header{"n": time.Second}}, "header n: "},
		"nested":         {polymq.Message{Header: polymq.Header{"a": polymq.Header{"b": []any{1, uint(2)}}}}, "header a.b[1]: "},
		"cycle":          {polymq.Message{Header: cycle}, "nested deeper"},
		"empty name":     {polymq.Message{Header: polymq.Header{"": 1}}, "key of 0 bytes"},
		"long name":      {polymq.Message{Header: polymq.Header{long: 1}}, "key of 256 bytes"},
		"CC string":      {polymq.Message{Header: polymq.Header{"CC": "a"}}, "header CC: "},
		"CC nil":         {polymq.Message{Header: polymq.Header{"CC": nil}}, "header CC: "},
		"BCC ints":       {polymq.Message{Header: polymq.Header{"BCC": []any{"a", 1}}}, "header BCC: "},
		"BCC key":        {polymq.Message{Header: polymq.Header{"BCC": []any{long}}}, "header BCC: [0]: "},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := sent(t, &c.m)
			wantIs(t, err, polymq.ErrInvalid)
			if got != nil {
				t.Error("it was sent")
			}
			if !strings.Contains(err.Error(), c.text) {
				t.Errorf("%q does not name %q", err, c.text)
			}
		})
	}
}

func TestWhatTheBackendLacks(t *testing.T) {
	f := newFake()
	f.features.Support[driver.TTL] = driver.Refused
	delete(f.features.Support, driver.Delay)
	p := publisher(t, f, nil)
	wantIs(t, p.Publish(t.Context(), &polymq.Message{TTL: 1}), errors.ErrUnsupported)
	wantIs(t, p.Publish(t.Context(), &polymq.Message{Delay: 1}), errors.ErrUnsupported)
	_, err := p.PublishAsync(t.Context(), &polymq.Message{Body: make([]byte, 1025)})
	wantIs(t, err, polymq.ErrTooLarge)
	if err := p.Publish(t.Context(), &polymq.Message{Body: make([]byte, 1024)}); err != nil {
		t.Fatal(err)
	}
}

func TestHeaderGetters(t *testing.T) {
	now := time.Now()
	h := polymq.Header{"s": "v", "i": 5, "f": float32(0.5), "b": false, "t": now, "y": []byte{1}, "m": map[string]any{"k": "v"}, "l": []any{1}}
	h.Set("z", "last")
	if h.Get("z") != "last" || h.Get("i") != "" || h.Get("none") != "" {
		t.Error("Get")
	}
	if want := []string{"b", "f", "i", "l", "m", "s", "t", "y", "z"}; !slices.Equal(h.Keys(), want) {
		t.Errorf("Keys: %v", h.Keys())
	}
	if v, ok := h.String("s"); v != "v" || !ok {
		t.Error("String")
	}
	if v, ok := h.Int("i"); v != 5 || !ok {
		t.Error("Int")
	}
	if v, ok := h.Float("f"); v != 0.5 || !ok {
		t.Error("Float")
	}
	if v, ok := h.Bool("b"); v || !ok {
		t.Error("Bool")
	}
	if v, ok := h.Time("t"); v != now || !ok {
		t.Error("Time")
	}
	if v, ok := h.Bytes("y"); len(v) != 1 || !ok {
		t.Error("Bytes")
	}
	if v, ok := h.Table("m"); v.Get("k") != "v" || !ok {
		t.Error("Table")
	}
	if v, ok := h.List("l"); len(v) != 1 || !ok {
		t.Error("List")
	}
	var none polymq.Header
	if _, ok := none.Int("s"); ok || len(none.Keys()) != 0 {
		t.Error("a nil header")
	}
}

// Drivers get whole milliseconds, and a delay in place of a time.
func TestTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.publish = f.hold
		p := publisher(t, f, nil)
		for _, m := range []*polymq.Message{
			{TTL: time.Nanosecond, Delay: 1500 * time.Microsecond},
			{TTL: 2 * time.Millisecond, At: time.Now().Add(time.Minute)},
			{At: time.Now().Add(-time.Minute)},
		} {
			if _, err := p.PublishAsync(t.Context(), m); err != nil {
				t.Fatal(err)
			}
		}
		want := []driver.Message{{TTL: time.Millisecond, Delay: 2 * time.Millisecond}, {TTL: 2 * time.Millisecond, Delay: time.Minute}, {}}
		for i, pub := range f.held() {
			if got := pub.Message; got.TTL != want[i].TTL || got.Delay != want[i].Delay || !got.At.IsZero() {
				t.Errorf("%d: TTL %v, Delay %v, At %v, want %+v", i, got.TTL, got.Delay, got.At, want[i])
			}
			pub.Resolve(nil)
		}
		wantIs(t, p.Publish(t.Context(), &polymq.Message{TTL: routing.MaxTTL + 1}), polymq.ErrInvalid)
		wantIs(t, p.Publish(t.Context(), &polymq.Message{Delay: 1, At: time.Now()}), polymq.ErrInvalid)
		f.features.Support[driver.Delay] = driver.Refused
		wantIs(t, p.Publish(t.Context(), &polymq.Message{At: time.Now()}), errors.ErrUnsupported)
	})
}
