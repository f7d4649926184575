package routing

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	long := strings.Repeat("é", 127) + "x" // 255 bytes
	legal := Topology{
		Exchanges: []Exchange{
			{Name: long, Kind: Direct}, {Name: "a b/c", Kind: Headers, Alternate: DefaultExchange},
			{Name: "amq.match", Kind: Headers}, {Name: "twice", Kind: Topic}, {Name: "twice", Kind: Topic},
		},
		Queues: []Queue{
			{Name: "q", DeadLetterExchange: DefaultExchange, DeadLetterKey: "k", MaxAttempts: 1, Args: map[string]any{
				"a": int8(1), "b": int16(1), "c": int32(1), "d": 1, "e": float32(1), "f": time.Now(), "g": []any{nil, []byte("x")}, "h": map[string]any{"t": true},
			}},
			{Name: "q", DeadLetterExchange: DefaultExchange, DeadLetterKey: "k", MaxAttempts: 1, Args: map[string]any{
				"a": int64(1), "b": 1, "c": 1, "d": 1, "e": 1.0, "f": time.Now(), "g": []any{nil, []byte("x")}, "h": map[string]any{"t": true},
			}},
			{Name: "rich", TTL: time.Millisecond, Expires: MaxTTL, MaxLength: 1, MaxBytes: 1, Overflow: RejectPublish, MaxPriority: 9, SingleActiveConsumer: true, Exclusive: true, AutoDelete: true},
			{Name: "drop", MaxLength: 1, Overflow: DropHead}, {Name: "drop", MaxLength: 1},
		},
		Bindings: []Binding{
			{Exchange: "twice", Queue: "q", Key: "#.a#.#"}, {Exchange: "amq.topic", ToExchange: "amq.topic"},
			{Exchange: "elsewhere", Queue: "elsewhere", Key: "#.#.#"}, // a fanout, for all we know
			{Exchange: "amq.match", Queue: "q", Args: map[string]any{"x-match": "any-with-x", "h": nil}},
		},
	}
	legal.Queues[1].Args["f"] = legal.Queues[0].Args["f"].(time.Time).In(time.FixedZone("", 3600))
	if err := legal.Validate(); err != nil {
		t.Errorf("a legal topology: %v", err)
	}

	deep := any("x")
	for range 100 {
		deep = []any{deep}
	}
	for _, c := range []struct {
		top  Topology
		says []string // one problem each
	}{
		{Topology{Exchanges: []Exchange{{}}}, []string{`exchange "": Name: invalid`, `exchange "": Kind: invalid`}},
		{Topology{Exchanges: []Exchange{{Name: long + "x", Kind: Direct}}}, []string{`Name: invalid: 256 bytes`}},
		{Topology{Exchanges: []Exchange{{Name: "a\nb", Kind: Direct}}}, []string{`exchange "a\nb": Name: invalid: control character 0x0a at byte 1`}},
		{Topology{Exchanges: []Exchange{{Name: "a\u0085", Kind: Direct}}}, []string{`Name: invalid: control character U+0085`}},
		{Topology{Exchanges: []Exchange{{Name: "a\xff", Kind: Direct}}}, []string{`Name: invalid: not UTF-8`}},
		{Topology{Exchanges: []Exchange{{Name: "amq.mine", Kind: Direct}}}, []string{`exchange "amq.mine": Name: invalid: the prefix amq. is reserved`}},
		{Topology{Exchanges: []Exchange{{Name: DefaultExchange, Kind: Direct}}}, []string{`Name: invalid: the prefix amq. is reserved`}},
		{Topology{Exchanges: []Exchange{{Name: "amq.topic", Kind: Topic, Transient: true}}}, []string{`exchange "amq.topic": Transient: invalid`}},
		{Topology{Exchanges: []Exchange{{Name: "amq.topic", Kind: Direct}}}, []string{`exchange "amq.topic": Kind: invalid`}},
		{Topology{Exchanges: []Exchange{{Name: "x", Kind: "x-later"}}}, []string{`exchange "x": Kind: invalid: "x-later"`}},
		{Topology{Exchanges: []Exchange{{Name: "x", Kind: Direct, Alternate: "\x00"}}}, []string{`exchange "x": Alternate: invalid`}},
		{Topology{Exchanges: []Exchange{{Name: "x", Kind: Direct}, {Name: "x", Kind: Direct, Alternate: "y"}}}, []string{`exchange "x": Alternate: invalid: given twice`}},
		{Topology{Queues: []Queue{{Name: "amq.gen"}}}, []string{`queue "amq.gen": Name: invalid`}},
		{Topology{Queues: []Queue{{Name: "q", DeadLetterKey: "k"}}}, []string{`queue "q": DeadLetterKey: invalid`}},
		{Topology{Queues: []Queue{{Name: "q", MaxAttempts: -1, Type: "a\x00", DeadLetterExchange: "\x01"}}}, []string{`queue "q": Type: invalid`, `queue "q": DeadLetterExchange: invalid`, `queue "q": MaxAttempts: invalid: -1`}},
		{Topology{Queues: []Queue{{Name: "q"}, {Name: "q", MaxAttempts: 1}}}, []string{`queue "q": MaxAttempts: invalid: given twice`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"a": 1}}, {Name: "q", Args: map[string]any{"a": "1"}}}}, []string{`queue "q": Args: invalid: given twice`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"a": uint64(1)}}}}, []string{`queue "q": Args[a]: invalid: type uint64`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"a": []any{1, map[string]any{"b": struct{}{}}}}}}}, []string{`queue "q": Args[a][1][b]: invalid: type struct {}`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"a": math.NaN()}}}}, []string{`Args[a]: invalid: NaN`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"a": deep}}}}, []string{`: invalid: nested deeper`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"": 1}}}}, []string{`Args[""]: name: invalid: empty`}},
		{Topology{Queues: []Queue{{Name: "q", TTL: -1}}}, []string{`queue "q": TTL: invalid: -1ns`}},
		{Topology{Queues: []Queue{{Name: "q", TTL: 1500 * time.Microsecond}}}, []string{`queue "q": TTL: invalid: 1.5ms: want whole milliseconds`}},
		{Topology{Queues: []Queue{{Name: "q", Expires: MaxTTL + time.Millisecond}}}, []string{`queue "q": Expires: invalid`}},
		{Topology{Queues: []Queue{{Name: "q", MaxLength: -1, MaxBytes: -1}}}, []string{`queue "q": MaxLength: invalid: -1`, `queue "q": MaxBytes: invalid: -1`}},
		{Topology{Queues: []Queue{{Name: "q", MaxLength: 1, Overflow: "drop-tail"}}}, []string{`queue "q": Overflow: invalid: "drop-tail"`}},
		{Topology{Queues: []Queue{{Name: "q", Overflow: RejectPublish}}}, []string{`queue "q": Overflow: invalid: without MaxLength or MaxBytes`}},
		{Topology{Queues: []Queue{{Name: "q", MaxPriority: 300}}}, []string{`queue "q": MaxPriority: invalid: 300`}},
		{Topology{Queues: []Queue{{Name: "q", MaxPriority: -1}}}, []string{`queue "q": MaxPriority: invalid: -1`}},
		{Topology{Queues: []Queue{{Name: "q", Args: map[string]any{"x-max-length": 5}}}}, []string{`queue "q": Args[x-max-length]: invalid: use MaxLength`}},
		{Topology{Exchanges: []Exchange{{Name: "x", Kind: Direct, Args: map[string]any{"x-max-length": 5, "x-message-ttl": 5}}}},
			[]string{`exchange "x": Args[x-max-length]: invalid: an exchange keeps no messages`, `exchange "x": Args[x-message-ttl]: invalid`}},
		{Topology{Exchanges: []Exchange{{Name: "x", Kind: Direct, Args: map[string]any{"alternate-exchange": "y"}}}}, []string{`exchange "x": Args[alternate-exchange]: invalid: use Alternate`}},
		{Topology{Queues: []Queue{{Name: "q", MaxLength: 1}, {Name: "q", MaxLength: 1, Overflow: RejectPublish}}}, []string{`queue "q": Overflow: invalid: given twice`}},
		{Topology{Bindings: []Binding{{}}}, []string{`Exchange: invalid: the default exchange`, `Queue: invalid: no destination`}},
		{Topology{Bindings: []Binding{{Exchange: "x", Queue: "q", ToExchange: "y"}}}, []string{`binding "x" -> exchange "y", key "": Queue: invalid: two destinations`}},
		{Topology{Bindings: []Binding{{Exchange: DefaultExchange, ToExchange: DefaultExchange}}}, []string{`Exchange: invalid: the default exchange`, `ToExchange: invalid: the default exchange`}},
		{Topology{Bindings: []Binding{{Exchange: "x\x00", Queue: "\x00", Key: "\x00"}}}, []string{`Exchange: invalid: control`, `Queue: invalid: control`, `Key: invalid: control`}},
		{Topology{Bindings: []Binding{{Exchange: "x", Queue: "q", Key: long + "x"}}}, []string{`Key: invalid: 256 bytes`}},
		{Topology{Bindings: []Binding{{Exchange: "x", Queue: "q", Args: map[string]any{"x-match": "some"}}}}, []string{`Args[x-match]: invalid: some`}},
		{Topology{Bindings: []Binding{{Exchange: "x", Queue: "q", Args: map[string]any{"x-match": []byte("all")}}}}, []string{`Args[x-match]: invalid`}},
		{Topology{Bindings: []Binding{{Exchange: "x", Queue: "q", Args: map[string]any{"h": uint(1)}}}}, []string{`Args[h]: invalid: type uint`}},
		{Topology{Bindings: []Binding{{Exchange: "amq.topic", Queue: "q", Key: "#.a.#.#"}}}, []string{`binding "amq.topic" -> "q", key "#.a.#.#": Key: invalid: 3 words are #`}},
		{Topology{Exchanges: []Exchange{{Name: "x", Kind: Topic}}, Bindings: []Binding{{Exchange: "x", Queue: "q", Key: "#.#.#"}}}, []string{`Key: invalid: 3 words are #`}},
	} {
		err := c.top.Validate()
		problems, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Errorf("%+v: %v: want %d problems", c.top, err, len(c.says))
			continue
		}
		var flat []error
		for _, p := range problems.Unwrap() {
			if inner, ok := p.(interface{ Unwrap() []error }); ok && strings.Contains(p.Error(), "\n") {
				flat = append(flat, inner.Unwrap()...)
			} else {
				flat = append(flat, p)
			}
		}
		if len(flat) != len(c.says) {
			t.Errorf("%d problems, want %d: %v", len(flat), len(c.says), err)
		}
		for _, p := range flat {
			if !errors.Is(p, ErrInvalid) {
				t.Errorf("not ErrInvalid: %v", p)
			}
		}
		for _, says := range c.says {
			if !strings.Contains(err.Error(), says) {
				t.Errorf("%v\ndoes not say %s", err, says)
			}
		}
	}
}

// A value that holds itself ends somewhere.
func TestValidateCycle(t *testing.T) {
	list := make([]any, 1)
	list[0] = list
	if err := (Queue{Name: "q", Args: map[string]any{"a": list}}).Validate(); !errors.Is(err, ErrInvalid) {
		t.Errorf("got %v", err)
	}
}

func TestHeaderValues(t *testing.T) {
	at := time.Unix(1700000000, 0)
	for _, c := range []struct {
		arg, header any
		want        bool
	}{
		{int64(1), int64(1), true}, {int8(1), 1, true}, {1, int16(1), true}, {1, 1.0, false}, {1.0, 1, false}, {1, "1", false}, {1, true, false},
		{1.5, 1.5, true}, {float32(1.5), 1.5, true}, {1.5, float32(1.5), true},
		{"a", "a", true}, {"a", []byte("a"), true}, {[]byte("a"), "a", true}, {[]byte("a"), []byte("a"), true}, {"a", "A", false}, {"", nil, false},
		{true, true, true}, {true, false, false}, {false, 0, false},
		{nil, nil, true}, {nil, "anything", true},
		{at, at, false}, {at, at.Unix(), false}, {at.Unix(), at, false},
		{[]any{1, "x", at}, []any{int64(1), "x", at.UTC()}, true}, {[]any{1}, []any{1, 2}, false}, {[]any{}, []any{}, true}, {[]any{"a"}, []any{[]byte("a")}, false},
		{map[string]any{"a": nil, "b": 2}, map[string]any{"b": int32(2), "a": nil}, true}, {map[string]any{"a": nil}, map[string]any{"a": 1}, false},
		{map[string]any{}, []any{}, false},
	} {
		table := mustTable(t, Topology{Queues: []Queue{{Name: "q"}}, Bindings: []Binding{{Exchange: "amq.headers", Queue: "q", Args: map[string]any{"h": c.arg}}}})
		if got := routed(t, table, "amq.headers", "", map[string]any{"h": c.header}) == "q"; got != c.want {
			t.Errorf("argument %#v, header %#v: match %v, want %v", c.arg, c.header, got, c.want)
		}
		if routed(t, table, "amq.headers", "", nil) != "" {
			t.Errorf("argument %#v matches without the header", c.arg)
		}
	}
	for mode, want := range map[string][3]bool{ // without headers, with h, with h and x-h
		"":           {false, true, true},
		"all":        {false, true, true},
		"any":        {false, true, true},
		"all-with-x": {false, false, true},
		"any-with-x": {false, true, true},
	} {
		args := map[string]any{"h": 1, "x-h": 2}
		if mode != "" {
			args["x-match"] = mode
		}
		table := mustTable(t, Topology{Queues: []Queue{{Name: "q"}}, Bindings: []Binding{{Exchange: "amq.match", Queue: "q", Args: args}}})
		for i, header := range []map[string]any{nil, {"h": 1}, {"h": 1, "x-h": 2}} {
			if got := routed(t, table, "amq.match", "", header) == "q"; got != want[i] {
				t.Errorf("x-match %q, header %v: match %v, want %v", mode, header, got, want[i])
			}
		}
	}
	for mode, want := range map[string]bool{"all": true, "any": false, "all-with-x": true, "any-with-x": false} {
		table := mustTable(t, Topology{Queues: []Queue{{Name: "q"}}, Bindings: []Binding{{Exchange: "amq.match", Queue: "q", Args: map[string]any{"x-match": mode}}}})
		if got := routed(t, table, "amq.match", "", nil) == "q"; got != want {
			t.Errorf("x-match %q alone: match %v, want %v", mode, got, want)
		}
	}
}
