package emulate

import (
	"reflect"
	"testing"

	"github.com/polymq/polymq/routing"
)

// FuzzElement: whatever lies in a stored topology is an error or something that
// a store can be given, and that is written as it was read.
func FuzzElement(f *testing.F) {
	for _, data := range []string{
		`{"v":1,"exchange":{"name":"x","kind":"topic","alternate":"y"}}`,
		`{"v":2,"queue":{"name":"q","incarnation":"i7","ttl":1000,"expires":60000,"max_length":5,"max_bytes":100,"overflow":"reject-publish","max_priority":9,"owner":"me"}}`,
		`{"v":1,"queue":{"name":"q","incarnation":"i","args":"{\"a\":\"int:5\"}"}}`,
		`{"v":2,"queue":{"name":"q","incarnation":"i","max_priority":-2}}`, `{"v":2,"queue":{"name":"q","incarnation":"i","ttl":-1}}`,
		`{"v":1,"queue":{"name":"q","incarnation":"a.>"}}`, `{"v":1,"queue":{"incarnation":""}}`,
		`{"v":1,"binding":{"exchange":"x","queue":"q","key":"k","args":"{\"x-match\":\"str:all\",\"l\":\"list:[\\\"nil:\\\"]\"}"}}`,
		`{"v":1,"binding":{"args":"null"}}`, `{"v":3}`, `{"v":1,"queue":null}`, `[]`, ``,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		el, err := decodeElement(data)
		if err != nil {
			return
		}
		switch {
		case el.Binding != nil:
			b, err := el.binding()
			if err != nil {
				return
			}
			e, err := encodeBinding(b)
			if err != nil {
				t.Fatalf("%s is read as %+v: %v", data, b, err)
			}
			again, err := decodeElement(e.Data)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := again.binding(); err != nil {
				t.Fatalf("%s became %s: %v", data, e.Data, err)
			}
		case el.Queue != nil:
			q, err := el.queue()
			if err != nil {
				return
			}
			if q.Incarnation == "" || q.MaxPriority < 0 || q.MaxPriority > 255 || q.TTL < 0 || q.Expires < 0 || q.MaxLength < 0 || q.MaxBytes < 0 || q.MaxAttempts < 0 {
				t.Fatalf("%s is read as %+v", data, q)
			}
			e, err := encodeQueue(q)
			if err != nil {
				t.Fatalf("%s is read as %+v: %v", data, q, err)
			}
			again, err := decodeElement(e.Data)
			if err != nil {
				t.Fatal(err)
			}
			if second, err := again.queue(); err != nil || !reflect.DeepEqual(q, second) {
				t.Fatalf("%s is read as %+v, then as %+v, %v", data, q, second, err)
			}
		default:
			_ = routing.Exchange{Name: el.Exchange.Name, Kind: el.Exchange.Kind}
		}
	})
}
