package routing

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

// fullTopology sets every field of every element.
func fullTopology(t *testing.T) Topology {
	full := Topology{
		Exchanges: []Exchange{{Name: "x", Kind: Topic, Transient: true, Alternate: DefaultExchange, Args: map[string]any{"hash-header": "h"}}},
		Queues: []Queue{{
			Name: "q", Type: Quorum, Transient: true, DeadLetterExchange: "x", DeadLetterKey: "k", BestEffortDeadLetter: true, MaxAttempts: 3,
			TTL: 90 * time.Second, Expires: 2 * time.Hour, MaxLength: 4, MaxBytes: 5, Overflow: RejectPublish, MaxPriority: 6,
			SingleActiveConsumer: true, Exclusive: true, AutoDelete: true, Args: map[string]any{"x-queue-mode": "lazy"},
		}},
		Bindings: []Binding{{Exchange: "x", Queue: "q", Key: "a.*", Args: map[string]any{
			"x-match": "any", "int": int64(1), "float": 1.0, "large": 1e300, "yes": true, "nil": nil, "bytes": []byte{0, 255}, "time": time.Unix(1700000000, 0).UTC(),
			"list": []any{int64(1), "two", map[string]any{"three": 3.5}}, "marked": map[string]any{"$bytes": "no"}, "empty": map[string]any{},
		}}, {Exchange: "x", ToExchange: "y", Args: map[string]any{"$time": "no"}}},
	}
	for _, e := range []any{full.Exchanges[0], full.Queues[0]} {
		v := reflect.ValueOf(e)
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Fatalf("%s.%s is not set", v.Type().Name(), v.Type().Field(i).Name)
			}
		}
	}
	return full
}

func TestTopologyJSON(t *testing.T) {
	full := fullTopology(t)
	data, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`"ttl":"1m30s"`, `"expires":"2h"`, `"float":1.0`, `"int":1,`, `{"$bytes":"AP8="}`, `{"$time":"2023-11-14T22:13:20Z"}`, `{"$table":{"$bytes":"no"}}`} {
		if !strings.Contains(string(data), text) {
			t.Errorf("%s is not in %s", text, data)
		}
	}
	var back Topology
	if err := json.Unmarshal(data, &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(full, back) {
		t.Errorf("wrote %#v\nread %#v", full, back)
	}
	for _, e := range []any{&Exchange{}, &Queue{}, &Binding{}} {
		data, _ := json.Marshal(map[string]any{"*routing.Exchange": full.Exchanges[0], "*routing.Queue": full.Queues[0], "*routing.Binding": full.Bindings[0]}[reflect.TypeOf(e).String()])
		if err := json.Unmarshal(data, e); err != nil {
			t.Errorf("%T alone: %v", e, err)
		}
		again, _ := json.Marshal(e)
		if string(again) != string(data) {
			t.Errorf("%T alone: wrote %s, read %s", e, data, again)
		}
	}
}

// Every field of the structs must be in the tables that files, comparisons and
// errors use.
func TestEveryFieldIsListed(t *testing.T) {
	for _, e := range []struct {
		of     any
		fields []field
	}{{Exchange{}, new(Exchange).fields()}, {Queue{}, new(Queue).fields()}, {Binding{}, new(Binding).fields()}} {
		v := reflect.TypeOf(e.of)
		var names, listed []string
		for i := range v.NumField() {
			names = append(names, v.Field(i).Name)
		}
		for _, f := range e.fields {
			listed = append(listed, f.name)
		}
		if !reflect.DeepEqual(names, listed) {
			t.Errorf("%v has the fields %v, listed are %v", v, names, listed)
		}
	}
}

func TestTopologyJSONRefuses(t *testing.T) {
	for _, tc := range []struct{ text, want string }{
		{`{"queue":[]}`, `unknown key "queue": want exchanges, queues, bindings`},
		{`{"queues":{}}`, `queues: invalid: want a list`},
		{`{"queues":[{"name":"q","tll":"30s"}]}`, `queues[0] "q": tll: invalid: unknown key: want name, type, transient`},
		{`{"queues":[{"name":"q"},{"name":"r","ttl":30}]}`, `queues[1] "r": ttl: invalid: 30: want a duration like "30s"`},
		{`{"queues":[{"name":"q","ttl":"30"}]}`, `queues[0] "q": ttl: invalid: "30": want a duration like "30s"`},
		{`{"queues":[{"name":"q","max_length":"many"}]}`, `max_length: invalid: "many": want an integer`},
		{`{"queues":[{"name":"q","transient":1}]}`, `transient: invalid: 1: want true or false`},
		{`{"queues":[{"name":"q","name":"r"}]}`, `key "name" is given twice`},
		{`{"queues":[{"name":null}]}`, `name: invalid: null: want a value, or leave it out`},
		{`{"queues":["q"]}`, `queues[0]: invalid: want an object`},
		{`{"exchanges":[{"name":"x","kind":7}]}`, `exchanges[0] "x": kind: invalid: 7: want a text`},
		{`{"bindings":[{"exchange":"x","args":[]}]}`, `bindings[0] "x": args: invalid: []: want an object`},
		{`{"bindings":[{"exchange":"x","args":{"a":[1,{"$byte":"x"}]}}]}`, `args[a][1]: invalid: $byte: want $bytes, $time or $table`},
		{`{"bindings":[{"exchange":"x","args":{"a":99999999999999999999}}]}`, `args[a]: invalid: the integer 99999999999999999999 is out of range`},
		{`{"bindings":[{"exchange":"x","args":{"a":{"$time":"noon"}}}]}`, `args[a]: invalid: $time: "noon"`},
		{`{"bindings":[{"exchange":"x","args":{"a":` + strings.Repeat("[", 70) + strings.Repeat("]", 70) + `}}]}`, `nested deeper`},
		{`[]`, `topology: invalid: want an object`},
	} {
		top := Topology{Queues: []Queue{{Name: "kept"}}}
		err := json.Unmarshal([]byte(tc.text), &top)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s\n\tgot  %v\n\twant %s", tc.text, err, tc.want)
		}
		if len(top.Queues) != 1 || top.Queues[0].Name != "kept" {
			t.Errorf("%s changed the topology", tc.text)
		}
	}
	if _, err := json.Marshal(Topology{Bindings: []Binding{{Exchange: "x", Queue: "q", Args: map[string]any{"a": "\xff"}}}}); err == nil || !errors.Is(err, ErrInvalid) {
		t.Errorf("a text that is not UTF-8: %v", err)
	}
}

func FuzzTopologyJSON(f *testing.F) {
	f.Add([]byte(`{"queues":[{"name":"q","ttl":"30s","args":{"a":[1,1.5,{"$bytes":""}]}}]}`))
	f.Add([]byte(`{"exchanges":[{"name":"x","kind":"topic"}],"bindings":[{"exchange":"x","queue":"q","args":{"$table":{"$time":1}}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var top, back Topology
		if json.Unmarshal(data, &top) != nil {
			return
		}
		text, err := json.Marshal(top)
		if err != nil {
			if errors.Is(err, ErrInvalid) {
				return // a name that no argument can have
			}
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatalf("wrote %s: %v", text, err)
		}
		if !reflect.DeepEqual(top, back) {
			t.Fatalf("read %#v, then %#v", top, back)
		}
	})
}
