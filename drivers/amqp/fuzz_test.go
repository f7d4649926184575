package amqp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// headersOf makes of JSON the types that amqp091 reads.
func headersOf(data []byte) (amqp091.Table, bool) {
	var v map[string]any
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if dec.Decode(&v) != nil {
		return nil, false
	}
	t, ok := amqpValue(v).(amqp091.Table)
	return t, ok
}

func amqpValue(v any) any {
	switch v := v.(type) {
	case map[string]any:
		t := amqp091.Table{}
		for k, e := range v {
			t[k] = amqpValue(e)
		}
		return t
	case []any:
		for i := range v {
			v[i] = amqpValue(v[i])
		}
		return v
	case json.Number:
		if n, err := v.Int64(); err == nil {
			if n%3 == 0 {
				return amqp091.Decimal{Scale: uint8(n), Value: int32(n)}
			}
			return n
		}
		f, _ := v.Float64()
		return f
	case string:
		if len(v)%7 == 6 {
			return []byte(v)
		}
	}
	return v
}

// FuzzDelivery: whatever headers somebody has published, a delivery is made of
// the message, from any kind of queue.
func FuzzDelivery(f *testing.F) {
	for _, headers := range []string{
		`{}`, `{"x-delivery-count":1,"x-acquired-count":2,"x-last-death-reason":"rejected"}`,
		`{"x-death":[{"queue":"q","reason":"expired","exchange":"x","count":2,"routing-keys":["k"],"time":5}],"CC":["k"]}`,
		`{"x-death":[{"queue":[],"reason":[]}],"polymq-x-death":[{"queue":[],"reason":[]}]}`,
		`{"x-death":[{"queue":"polymq.delay.1"}],"polymq-exchange":"x","polymq-queue":"q","polymq-attempts":4,"polymq-ttl":1,"polymq-first":{"queue":"a"},"polymq-last":[]}`,
		`{"x-death":5,"polymq-app-x":1,"polymq-x-death":"text"}`, `{"x-death":[1,{},[]],"x-first-death-queue":{}}`,
	} {
		for _, exchange := range []string{"", exchangeIn, exchangeLost} {
			f.Add([]byte(headers), exchange, "60000")
			f.Add(bytes.ReplaceAll([]byte(headers), []byte("polymq-x-death"), []byte(headerDeath)), exchange, "-1")
		}
	}
	f.Fuzz(func(t *testing.T, headers []byte, exchange, expiration string) {
		for _, kind := range []string{"", typeQuorum, typeClassic} {
			for _, v := range []version{{3, 10}, {4, 3}} {
				table, ok := headersOf(headers)
				if !ok {
					return
				}
				s := &subscriber{queue: "q", c: &Conn{version: v}}
				l := new(life)
				l.kind.kind = kind
				in := s.deliver(l, &amqp091.Delivery{Headers: table, Exchange: exchange, RoutingKey: "k", Redelivered: true, Expiration: expiration, Body: headers})
				if in.Message.TTL < 0 {
					t.Errorf("a TTL of %v", in.Message.TTL)
				}
			}
		}
	})
}

// FuzzManagement: whatever the management API answers is made something of.
func FuzzManagement(f *testing.F) {
	for _, row := range []string{
		`{"name":"q","type":"quorum","durable":true,"arguments":{"x-delivery-limit":4,"x-message-ttl":1000,"x-max-priority":300,"x-overflow":"reject-publish"},"effective_policy_definition":{"overflow":"reject-publish"}}`,
		`{"name":"x","type":"topic","arguments":{"alternate-exchange":5,"a":[1,{"b":1e999}]}}`, `{"source":"x","destination_type":"exchange","arguments":{"n":"undefined"}}`,
		`{"effective_policy_definition":[],"arguments":{"x-delivery-limit":99999999999999999999}}`, `{"arguments":null}`, `null`,
	} {
		f.Add([]byte(row))
	}
	f.Fuzz(func(t *testing.T, row []byte) {
		decode := func(into any) bool {
			dec := json.NewDecoder(bytes.NewReader(row))
			dec.UseNumber()
			return dec.Decode(into) == nil
		}
		var q queueRow
		if decode(&q) {
			_, _ = q.kind(), q.row().Queue()
		}
		var x exchangeRow
		if decode(&x) {
			_ = x.exchange()
		}
		var b bindingRow
		if decode(&b) {
			_ = compareBindings(b.binding(), b.binding())
		}
	})
}

// FuzzReason: whatever a broker gives as the reason of an error.
func FuzzReason(f *testing.F) {
	f.Add(uint16(amqp091.PreconditionFailed), "PRECONDITION_FAILED - inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received none but current is the value '5' of type 'signedint'")
	f.Add(uint16(amqp091.AccessRefused), "ACCESS_REFUSED - access to exchange 'x' in vhost '/' refused for user 'u'")
	f.Add(uint16(amqp091.NotFound), "NOT_FOUND - no exchange '' in vhost")
	f.Add(uint16(amqp091.PreconditionFailed), " but current is the value ' of type '")
	f.Fuzz(func(t *testing.T, code uint16, reason string) {
		e := &amqp091.Error{Code: int(code), Reason: reason, Server: true}
		for _, err := range []error{wrap(e), wrap(lacking(makeQueue, e)), fmt.Errorf("x: %w", wrap(e))} {
			if !errors.Is(err, e) {
				t.Errorf("%v has lost the broker's error", err)
			}
		}
		_, _, _ = blame(e, []item{{from: &publisher{}}, {from: &publisher{}}})
		if v, ok := currentValue(reason); ok {
			_ = number(v)
		}
	})
}

// FuzzSieve: whatever comes from a broker goes through, and what was sifted once
// is not changed by sifting it again.
func FuzzSieve(f *testing.F) {
	frame := func(kind byte, payload ...byte) []byte {
		return append(append([]byte{kind, 0, 1, 0, 0, 0, byte(len(payload))}, payload...), 0xce)
	}
	header := func(table ...byte) []byte {
		return frame(frameHeader, append([]byte{0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0xa0, 0, 1, 't', 0, 0, 0, byte(len(table))}, table...)...)
	}
	f.Add(frame(3, 1, 2, 3))
	f.Add(header(1, 'a', 'I', 0, 0, 0, 1, 1, 'b', 'A', 0, 0, 0, 1, 'V'))
	f.Add(append(header(1, 'a', 'A', 0, 0, 0, 9, 'V'), frame(1, 0, 60)...))
	f.Add(header(1, 'a', '?', 1, 'b', 'F', 0, 0, 0, 4, 1, 'c', 't', 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		once, err := io.ReadAll(newSieve(bytes.NewReader(data)))
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		twice, _ := io.ReadAll(newSieve(bytes.NewReader(once)))
		if !bytes.Equal(once, twice) {
			t.Errorf("sifted once\n%x\nand again\n%x", once, twice)
		}
		if len(once) > len(data)+len(data)/frameHead*64 {
			t.Errorf("%d bytes became %d", len(data), len(once))
		}
	})
}
