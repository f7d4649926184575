package config_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/polymq/polymq/config"
	"github.com/polymq/polymq/routing"
)

var full = routing.Topology{
	Exchanges: []routing.Exchange{{Name: "x", Kind: routing.Headers, Transient: true, Alternate: routing.DefaultExchange}, {Name: "true", Kind: routing.Topic}},
	Queues: []routing.Queue{
		{Name: "q", Type: routing.Quorum, DeadLetterExchange: "x", DeadLetterKey: "07", BestEffortDeadLetter: true, MaxAttempts: 3, TTL: 90 * time.Second,
			Expires: 2 * time.Hour, MaxLength: 4, MaxBytes: 5, Overflow: routing.RejectPublish, SingleActiveConsumer: true, AutoDelete: true, Args: map[string]any{"x-a": "b"}},
		{Name: "2026-11-29", MaxPriority: 6, Exclusive: true, Transient: true},
	},
	Bindings: []routing.Binding{
		{Exchange: "x", Queue: "q", Key: "", Args: map[string]any{
			"x-match": "any", "int": int64(1), "float": 1.0, "large": 1e300, "yes": true, "nil": nil, "bytes": []byte{0, 255}, "time": time.Unix(1700000000, 0).UTC(),
			"list": []any{int64(1), "two", map[string]any{"three": 3.5}}, "text": "a: b # c", "no": "no", "number": "1.0", "lines": "a\nb ",
		}},
		{Exchange: "true", ToExchange: "x", Key: "a.*.#"},
	},
}

func TestReadTopology(t *testing.T) {
	yaml, err := config.MarshalTopology(full)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(yaml), `{"`) || !strings.Contains(string(yaml), "ttl: 1m30s\n") {
		t.Errorf("not as people write it:\n%s", yaml)
	}
	jsonText, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"t.yaml": string(yaml), "t.yml": string(jsonText), "t.json": string(jsonText)} {
		got, err := config.ReadTopology(write(t, name, text))
		if err != nil || !reflect.DeepEqual(got, full) {
			t.Errorf("%s: %v\ngot  %+v\nwant %+v\n%s", name, err, got, full, text)
		}
	}
}

func TestReadTopologyRefuses(t *testing.T) {
	deep := strings.Repeat("[", 200) + strings.Repeat("]", 200)
	bomb := "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
	for c := 'b'; c < 'j'; c++ {
		prev := string(c - 1)
		bomb += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+prev+",", 9) + "*" + prev + "]\n"
	}
	for _, tc := range []struct{ name, text, want string }{
		{"a.yaml", "queues:\n  - name: q\n    tll: 30s\n", `a.yaml: queues[0] "q": tll: invalid: unknown key: want name, type`},
		{"b.yaml", "queues:\n  - name: q\n    ttl: 30\n", `b.yaml: queues[0] "q": ttl: invalid: 30: want a duration like "30s"`},
		{"c.yaml", "queues:\n  - {name: q, name: r}\n", "is given twice"},
		{"d.yaml", "queues:\n  - name: q\n  name: r\n", ": invalid: not well-formed YAML"},
		{"e.yaml", "exchanges:\n  - name: x\n    kind: topik\n", `e.yaml: exchange "x": Kind: invalid: "topik" is not known`},
		{"f.yaml", "bindings:\n  - exchange: x\n    queue: q\n    args: {when: 2026-11-29}\n", "f.yaml:4: invalid: 2026-11-29: quote it"},
		{"g.yaml", "bindings:\n  - exchange: x\n    queue: q\n    args: {n: 99999999999999999999}\n", "out of range"},
		{"h.yaml", "bindings:\n  - exchange: x\n    args: {n: " + deep + "}\n", "too deep or too large"},
		{"i.yaml", bomb, "too deep or too large"},
		{"j.yaml", "a: &a [*a]\n", "invalid"},
		{"k.json", `{"queues":[{"name":"q","max_length":-1}]}`, `k.json: queue "q": MaxLength: invalid: -1`},
		{"m.json", "{\n\"queues\": [}", "m.json:2: invalid: not well-formed JSON: invalid character"},
		{"n.json", "", "n.json:1: invalid: not well-formed JSON"},
		{"o.yaml", "queues:\n  - name: q\n---\nqueues:\n  - name: r\n", "o.yaml:4: invalid: a second document"},
		{"p.yaml", "queues:\n  - name: q\n---\n[", "p.yaml:4: invalid: not well-formed YAML"},
		{"q.yaml", "queues: []\nqueues: []\n", `key "queues" is given twice`},
		{"l.txt", "", `the name ends in ".txt": want .yaml, .yml or .json`},
	} {
		_, err := config.ReadTopology(write(t, tc.name, tc.text))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got  %v\n\twant %s", tc.name, err, tc.want)
		} else if !errors.Is(err, config.ErrInvalid) && !errors.Is(err, routing.ErrInvalid) {
			t.Errorf("%s: %v is not ErrInvalid", tc.name, err)
		}
	}
}

func FuzzUnmarshalTopology(f *testing.F) {
	yaml, _ := config.MarshalTopology(full)
	f.Add(yaml)
	f.Add([]byte("a: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		top, err := config.UnmarshalTopology(data)
		if err != nil || top.Validate() != nil {
			return
		}
		text, err := config.MarshalTopology(top)
		if err != nil {
			if errors.Is(err, routing.ErrInvalid) {
				return
			}
			t.Fatal(err)
		}
		again, err := config.UnmarshalTopology(text)
		if err != nil || !reflect.DeepEqual(top, again) {
			t.Fatalf("%v\nread %+v\nwrote %s\nread %+v", err, top, text, again)
		}
	})
}
