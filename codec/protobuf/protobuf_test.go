package protobuf_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/polymq/polymq"
	"github.com/polymq/polymq/codec/protobuf"
	_ "github.com/polymq/polymq/drivers/amqp"
	_ "github.com/polymq/polymq/drivers/mem"
	_ "github.com/polymq/polymq/drivers/nats"
	_ "github.com/polymq/polymq/drivers/redis"
	"github.com/polymq/polymq/internal/testbroker"
	"github.com/polymq/polymq/routing"
)

func TestMain(m *testing.M) { testbroker.Main(m) }

var at = timestamppb.New(time.Unix(1_800_000_000, 5))

func TestCodecs(t *testing.T) {
	for _, c := range []struct {
		codec       polymq.Codec
		contentType string
		body        string
	}{
		{protobuf.Codec, "application/protobuf", "\x08\x80\xa4\xa7\xda\x06\x10\x05"},
		{protobuf.JSON, "application/json", `"2027-01-15T08:00:00.000000005Z"`},
	} {
		m, err := polymq.Encode(at, c.codec)
		if err != nil {
			t.Fatal(err)
		}
		if m.ContentType != c.contentType || string(m.Body) != c.body || m.Type != "google.protobuf.Timestamp" {
			t.Errorf("%q: %+v", m.Body, m)
		}
		got, err := polymq.Decode[*timestamppb.Timestamp](m, protobuf.JSON, protobuf.Codec)
		if err != nil || !proto.Equal(got, at) {
			t.Errorf("%v %v", got, err)
		}
		var into timestamppb.Timestamp
		if err := c.codec.Decode(m, &into); err != nil || !proto.Equal(&into, at) {
			t.Errorf("%v %v", &into, err)
		}
	}
}

func TestContentTypes(t *testing.T) {
	for contentType, want := range map[string]bool{
		"application/protobuf": true, "application/x-protobuf; charset=x": true, "application/vnd.google.protobuf": true,
		"application/vnd.order+protobuf": true, "": false, "application/json": false, "application/": false, "text/protobuf2": false,
	} {
		if got := protobuf.Codec.Decodes(&polymq.Message{ContentType: contentType}); got != want {
			t.Errorf("%q: %v", contentType, got)
		}
	}
}

func TestRefusals(t *testing.T) {
	var none *timestamppb.Timestamp
	for _, v := range []any{none, "text"} {
		if _, err := polymq.Encode(v, protobuf.Codec); !errors.Is(err, polymq.ErrInvalid) {
			t.Errorf("%T: %v", v, err)
		}
	}
	m, err := polymq.Encode(at, protobuf.Codec)
	if err != nil {
		t.Fatal(err)
	}
	// A Duration has the same fields: the bytes alone would decode.
	if d, err := polymq.Decode[*durationpb.Duration](m, protobuf.Codec); !errors.Is(err, polymq.ErrUndecodable) {
		t.Errorf("a Timestamp was read as the Duration %v: %v", d, err)
	}
	m.Type = "whatever the application calls it"
	if _, err := polymq.Decode[*durationpb.Duration](m, protobuf.Codec); err != nil {
		t.Error(err)
	}
	m.Body = []byte{0xff}
	for _, err := range []error{
		second(polymq.Decode[*timestamppb.Timestamp](m, protobuf.Codec)),
		second(polymq.Decode[string](m, protobuf.Codec)),
		second(polymq.Decode[*string](m, protobuf.Codec)),
	} {
		if !errors.Is(err, polymq.ErrUndecodable) {
			t.Error(err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestOnEveryBackend(t *testing.T) {
	want, err := structpb.NewStruct(map[string]any{"total": 17, "items": []any{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
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
			for _, c := range []polymq.Codec{protobuf.Codec, protobuf.JSON} {
				if err := polymq.NewTypedPublisher[*structpb.Struct](pub, c).Publish(ctx, polymq.Message{Key: "q"}, want); err != nil {
					t.Fatal(err)
				}
			}
			sub, err := conn.Subscriber(ctx, "q", nil)
			if err != nil {
				t.Fatal(err)
			}
			run, stop := context.WithCancel(ctx)
			got := 0
			err = sub.Run(run, polymq.Typed(func(_ context.Context, d *polymq.Delivery, s *structpb.Struct) error {
				if !proto.Equal(s, want) {
					t.Errorf("%s: got %v", d.ContentType, s)
				}
				if got++; got == 2 {
					stop()
				}
				return nil
			}, protobuf.Codec, protobuf.JSON))
			if err != nil || got != 2 {
				t.Errorf("%d messages, %v", got, err)
			}
		})
	}
}
