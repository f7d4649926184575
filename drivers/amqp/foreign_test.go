package amqp

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/polymq/polymq/driver"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

// TestForeignMessage delivers what another AMQP program published, with every
// type of field.
func TestForeignMessage(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "q"}}}))
	at := time.Unix(1600000000, 0)
	check(t, c.do(ctxOf(t), func(ch *channel) error {
		return ch.Publish("", "q", true, false, amqp091.Publishing{
			Body: []byte("x"), Expiration: "60000", DeliveryMode: 1,
			Headers: amqp091.Table{
				"i8": int8(-1), "u8": byte(200), "i16": int16(-300), "u16": uint16(60000), "i32": int32(-70000), "u32": uint32(4e9), "i64": int64(-1 << 60),
				"f32": float32(0.5), "f64": 0.25, "dec": amqp091.Decimal{Scale: 3, Value: -5}, "t": true, "s": "text", "x": []byte{1}, "at": at, "n": nil,
				"table": amqp091.Table{"i": int16(5), "at": at, "in": amqp091.Table{"d": amqp091.Decimal{Scale: 2, Value: 12345}}},
				"list":  []any{int8(1), float32(2), amqp091.Table{"u": byte(3)}, []any{at}},
			},
		})
	}))
	s := subscribe(t, c, "q", 1)
	d := receive(t, s)
	want := driver.Header{
		"i8": int64(-1), "u8": int64(200), "i16": int64(-300), "u16": int64(60000), "i32": int64(-70000), "u32": int64(4e9), "i64": int64(-1 << 60),
		"f32": 0.5, "f64": 0.25, "dec": "-0.005", "t": true, "s": "text", "x": []byte{1}, "at": at.UTC(), "n": nil,
		"table": map[string]any{"i": int64(5), "at": at.UTC(), "in": map[string]any{"d": "123.45"}},
		"list":  []any{int64(1), 2.0, map[string]any{"u": int64(3)}, []any{at.UTC()}},
	}
	if !reflect.DeepEqual(d.Message.Header, want) {
		t.Errorf("got %#v\nwant %#v", d.Message.Header, want)
	}
	if d.Message.ID != "" || d.Message.TTL != time.Minute || !d.Message.Transient || !d.Message.Time.IsZero() {
		t.Errorf("got %+v", d.Message)
	}
	// It can be delayed like any other, and keeps having no ID.
	nackLater(t, s, d, 10*time.Millisecond)
	d = receive(t, s)
	if !reflect.DeepEqual(d.Message.Header, want) || d.Message.ID != "" || d.Attempt != 2 {
		t.Errorf("delayed: %+v", d)
	}
	settle(t, s, d, driver.Ack)
}

func tryOpen(t *testing.T, url string) error {
	t.Helper()
	u, err := driver.ParseURL(url)
	check(t, err)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	said := false
	c, err := Driver{}.Open(ctx, u, driver.Config{Logger: slog.New(slog.DiscardHandler), OnState: func(driver.State, error) { said = true }})
	if err != nil && said {
		t.Error("OnState was told of a connection that never was")
	}
	if err == nil {
		c.Close(ctx)
	}
	return err
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	good := testbroker.URL(t, "amqp")
	_, rest, _ := strings.Cut(good, "@")
	host, _, _ := strings.Cut(rest, "/")
	for _, tc := range []struct {
		url  string
		want error
		text string
	}{
		{"amqp://polymq:wrong-secret@" + rest, driver.ErrPermission, "username or password"},
		{strings.Split(good, host)[0] + host + "/no-such-vhost", driver.ErrNotFound, "no-such-vhost"},
		{"amqp://127.0.0.1:1/", nil, "refused"},
		{good + "&hartbeat=5s", nil, "hartbeat"},
		{good + "&heartbeat=5", nil, "heartbeat"},
		{"amqp://localhost/?management=nonsense", nil, "management"},
	} {
		err := tryOpen(t, tc.url)
		if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: got %v", tc.text, err)
		}
	}
	for _, p := range []amqp091.Table{{"product": "RabbitMQ", "version": "3.9.29"}, {"product": "LavinMQ", "version": "4.0.0"}, {}} {
		if err := checkBroker(p); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "3.10") {
			t.Errorf("%v: %v", p, err)
		}
	}
	for _, v := range []string{"3.10.0", "3.13.7", "4.0.0-beta.1", "4.3.6"} {
		check(t, checkBroker(amqp091.Table{"product": "RabbitMQ", "version": v}))
	}
	// The next host of the list is tried.
	check(t, tryOpen(t, strings.Replace(good, "@", "@127.0.0.1:1,", 1)))
}

func TestDeclareRefuses(t *testing.T) {
	c := open(t)
	check(t, c.Declare(ctxOf(t), routing.Topology{
		Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic, Alternate: "alt"}},
		Queues:    []routing.Queue{{Name: "q", MaxAttempts: 3, DeadLetterExchange: "x"}, {Name: "c", Type: typeClassic}},
	}))
	for _, tc := range []struct {
		t    routing.Topology
		want error
		text string
	}{
		{routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Direct, Alternate: "alt"}}}, driver.ErrConflict, "Kind"},
		{routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic}}}, driver.ErrConflict, "Alternate"},
		{routing.Topology{Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Topic, Transient: true, Alternate: "alt"}}}, driver.ErrConflict, "Transient"},
		{routing.Topology{Exchanges: []routing.Exchange{{Name: "new", Kind: "x-random"}}}, errors.ErrUnsupported, "x-random"},
		{routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 4, DeadLetterExchange: "x"}}}, driver.ErrConflict, "MaxAttempts"},
		{routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 3, DeadLetterExchange: "y"}}}, driver.ErrConflict, "DeadLetterExchange"},
		{routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 3}}}, driver.ErrConflict, "DeadLetterExchange"},
		{routing.Topology{Queues: []routing.Queue{{Name: "q", MaxAttempts: 3, DeadLetterExchange: "x", BestEffortDeadLetter: true}}}, driver.ErrConflict, "BestEffortDeadLetter"},
		{routing.Topology{Queues: []routing.Queue{{Name: "c"}}}, driver.ErrConflict, "Type"},
		{routing.Topology{Queues: []routing.Queue{{Name: "n", Type: typeClassic, DeadLetterExchange: "x"}}}, errors.ErrUnsupported, "BestEffortDeadLetter"},
		{routing.Topology{Queues: []routing.Queue{{Name: "n", Type: typeClassic, MaxAttempts: 1}}}, errors.ErrUnsupported, "MaxAttempts"},
		{routing.Topology{Queues: []routing.Queue{{Name: "n", Args: map[string]any{"x-delivery-limit": 5, "x-nonsense": 1}}}}, errors.ErrUnsupported, "x-delivery-limit, x-nonsense"},
		{routing.Topology{Bindings: []routing.Binding{{Exchange: "none", Queue: "q"}}}, driver.ErrNotFound, "none"},
	} {
		err := c.Declare(ctxOf(t), tc.t)
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%+v: got %v, want %v naming %s", tc.t, err, tc.want, tc.text)
		}
	}
	c.management = nil
	if err := c.Verify(ctxOf(t), routing.Topology{Queues: []routing.Queue{{Name: "n"}}}); !errors.Is(err, driver.ErrNotFound) {
		t.Errorf("a refused queue stands: %v", err)
	}
	if _, err := c.Inspect(ctxOf(t), "q"); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "management") {
		t.Errorf("Inspect without the management API: %v", err)
	}
}
