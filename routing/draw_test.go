package routing

import (
	"html"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A picture is what a reader of Mermaid or DOT makes of a text: labels of nodes
// by id, and arrows as "from to style label". It fails on any other line.
type picture struct {
	nodes  map[string]string
	arrows []string
}

var (
	mermaidNode  = regexp.MustCompile(`^    (e\d+\{\{"|q\d+\[\(")([^"]*)("\}\}|"\)\])(:::outside)?$`)
	mermaidArrow = regexp.MustCompile(`^    ([eq]\d+) (-->|-\.->)(?:\|"([^"]*)"\|)? ([eq]\d+)$`)
	mermaidRaw   = regexp.MustCompile(`^(?:[\p{L}\p{Nd} ._-]|#[0-9]+;)*$`)
	dotNode      = regexp.MustCompile(`^\t([eq]\d+) \[shape=(hexagon|cylinder)(?:, style=dashed)?, label="((?:[^"\\]|\\["\\n])*)"\];$`)
	dotArrow     = regexp.MustCompile(`^\t([eq]\d+) -> ([eq]\d+)(?: \[(?:label="((?:[^"\\]|\\["\\n])*)")?(?:, )?(style=dashed)?\])?;$`)
	mermaidCode  = regexp.MustCompile(`#([0-9]+);`)
	mermaidMarks = regexp.MustCompile(`\\n|\$\$|:fa-|ﬂ°|¶ß`)
)

func readMermaid(t *testing.T, text string) picture {
	t.Helper()
	p := picture{nodes: map[string]string{}}
	decode := func(label string) string {
		lines := strings.Split(label, "<br/>")
		for i, line := range lines {
			if !mermaidRaw.MatchString(line) {
				t.Errorf("the label %q holds what may be markup", line)
			}
			line = html.UnescapeString(mermaidCode.ReplaceAllString(line, "&#$1;"))
			if mermaidMarks.MatchString(line) {
				t.Errorf("the label %q holds what Mermaid looks for in it", line)
			}
			lines[i] = strings.NewReplacer("\u00a0", " ", "\u2060", "").Replace(line)
		}
		return strings.Join(lines, "\n")
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if lines[0] != "flowchart LR" {
		t.Errorf("begins with %q", lines[0])
	}
	for _, line := range lines[1:] {
		if m := mermaidNode.FindStringSubmatch(line); m != nil {
			p.nodes[strings.TrimRight(m[1], `{["(`)] = decode(m[2])
		} else if m := mermaidArrow.FindStringSubmatch(line); m != nil {
			p.arrows = append(p.arrows, strings.Join([]string{m[1], m[4], map[string]string{"-.->": "style=dashed"}[m[2]], decode(m[3])}, " "))
		} else if line != "    classDef outside stroke-dasharray: 4 4" {
			t.Errorf("no line of a flowchart: %q", line)
		}
	}
	return p
}

func readDOT(t *testing.T, text string) picture {
	t.Helper()
	p := picture{nodes: map[string]string{}}
	decode := func(label string) string {
		return html.UnescapeString(strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\n`, "\n").Replace(label))
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if lines[0] != "digraph topology {" || lines[len(lines)-1] != "}" {
		t.Errorf("from %q to %q", lines[0], lines[len(lines)-1])
	}
	for _, line := range lines[4 : len(lines)-1] {
		if m := dotNode.FindStringSubmatch(line); m != nil {
			p.nodes[m[1]] = decode(m[3])
		} else if m := dotArrow.FindStringSubmatch(line); m != nil {
			p.arrows = append(p.arrows, strings.Join([]string{m[1], m[2], m[4], decode(m[3])}, " "))
		} else {
			t.Errorf("no line of a graph: %q", line)
		}
	}
	return p
}

// checkDrawn wants both languages to say what the drawing does.
func checkDrawn(t *testing.T, top Topology) picture {
	t.Helper()
	want := picture{nodes: map[string]string{}}
	d := top.draw()
	for _, n := range d.nodes {
		want.nodes[n.id] = strings.Join(n.lines, "\n")
	}
	for _, a := range d.arrows {
		want.arrows = append(want.arrows, strings.Join([]string{a.from, a.to, map[bool]string{true: "style=dashed"}[a.dashed], a.label}, " "))
	}
	for language, got := range map[string]picture{"Mermaid": readMermaid(t, top.Mermaid()), "DOT": readDOT(t, top.DOT())} {
		if !maps.Equal(got.nodes, want.nodes) || !slices.Equal(got.arrows, want.arrows) {
			t.Errorf("%s shows\n%q\nwant\n%q", language, got, want)
		}
	}
	return want
}

func TestDraw(t *testing.T) {
	top := Topology{
		Exchanges: []Exchange{
			{Name: "in", Kind: Topic, Alternate: "rest", Transient: true},
			{Name: "hash", Kind: ConsistentHash, Args: map[string]any{"hash-header": "user"}},
			{Name: "last", Kind: Fanout, Alternate: DefaultExchange},
		},
		Queues: []Queue{
			{Name: "a", Type: Quorum, DeadLetterExchange: "in", DeadLetterKey: "dead.a", Overflow: RejectPublish, MaxLength: 5, TTL: time.Minute},
			{Name: "b", DeadLetterExchange: DefaultExchange, DeadLetterKey: "a", Exclusive: true, MaxPriority: 3},
			{Name: "c", DeadLetterExchange: DefaultExchange, BestEffortDeadLetter: true, Args: map[string]any{"x-n": 1}},
			{Name: "d", DeadLetterExchange: "rest"},
		},
		Bindings: []Binding{
			{Exchange: "in", Queue: "a", Key: "x.*"}, {Exchange: "in", Queue: "a"}, {Exchange: "in", ToExchange: "hash", Key: "#"},
			{Exchange: "hash", Queue: "a", Key: "1"}, {Exchange: "amq.match", Queue: "b", Args: map[string]any{"n": 1, "x-match": "any"}},
			{Exchange: "amq.match", Queue: "b", Args: map[string]any{"n": int64(1), "x-match": "any"}}, // the same one
			{Exchange: "amq.direct", Queue: "b"}, {Exchange: "last", Queue: "elsewhere"}, {Exchange: "last", Queue: "d", Key: "ignored"},
		},
	}
	got := checkDrawn(t, top)
	var text []string
	for _, a := range got.arrows {
		f := strings.SplitN(a, " ", 4)
		text = append(text, strings.TrimSpace(got.nodes[f[0]]+" | "+got.nodes[f[1]]+" | "+strings.TrimPrefix(f[2], "style=")+" | "+f[3]))
	}
	for i := range text {
		text[i] = strings.ReplaceAll(text[i], "\n", ", ")
	}
	const (
		a, b, c, d = "a, type quorum, ttl 1m0s, max_length 5, overflow reject-publish", "b, max_priority 3, exclusive", `c, best_effort_dead_letter, args {"x-n":1}`, "d"
		in, hash   = "in, topic, transient", `hash, x-consistent-hash, args {"hash-header":"user"}`
		rest       = "rest, not in this topology"
	)
	want := []string{
		"amq.direct, direct | " + b + ` |  | ""`,
		"amq.match, headers | " + b + ` |  | {"n":1,"x-match":"any"}`,
		hash + " | " + a + " |  | 1",
		in + " | " + hash + " |  | #",
		in + " | " + a + ` |  | ""`,
		in + " | " + a + " |  | x.*",
		"last, fanout | " + d + " |  | ignored",
		"last, fanout | elsewhere, not in this topology |  |",
		in + " | " + rest + " | dashed | alternate",
		"last, fanout | amq.default, default exchange | dashed | alternate",
		a + " | " + in + " | dashed | dead letters dead.a",
		b + " | " + a + " | dashed | dead letters",
		c + " | amq.default, default exchange | dashed | dead letters",
		d + " | " + rest + " | dashed | dead letters",
	}
	if !slices.Equal(text, want) {
		t.Errorf("the arrows are\n%s\nwant\n%s", strings.Join(text, "\n"), strings.Join(want, "\n"))
	}
	mermaid, dot := top.Mermaid(), top.DOT()
	for range 20 {
		rand.Shuffle(len(top.Exchanges), func(i, j int) { top.Exchanges[i], top.Exchanges[j] = top.Exchanges[j], top.Exchanges[i] })
		rand.Shuffle(len(top.Queues), func(i, j int) { top.Queues[i], top.Queues[j] = top.Queues[j], top.Queues[i] })
		rand.Shuffle(len(top.Bindings), func(i, j int) { top.Bindings[i], top.Bindings[j] = top.Bindings[j], top.Bindings[i] })
		if top.Mermaid() != mermaid || top.DOT() != dot {
			t.Fatal("another order draws another picture")
		}
	}
}

var nastyNames = []string{
	`"`, `]`, `)]`, `"}}`, `a"b"`, "|", `"|x|"`, "#", "#quot;", "#35;", ";", "&quot;", "&#34;", "&", "<b>", "<br/>", "<script>alert(1)</script>", `\`, `\"`, `\\`, `\n`, `\N`, `a\`,
	"end", "subgraph", "graph", "digraph", "node", "strict", "e0", "q1", "class", "click x", "style e0 fill:#fff;", "classDef x fill:#f00;", "%%", "%%{init: {}}%%", "---", "-->", "--o", "x--x", "->", "//", "/*", "*/", "{", "}", "{{", "[[",
	"`", "`**b**`", "**b**", "_i_", "__b__", "a_b", "- item", "1. one", "1.", "1)", "+ x", "> q", "# title", "www.example.com", "WWW.x.org", "http://x.org", "a@b.org", "~~s~~", "$$x^2$$", "fa:fa-car", ":::outside", "@{shape: x}",
	" ", "  two  ", "straße", "日本", "😀", "é", "\u202eback", "\u00a0", "\u2028", "\ufeff", "\ufffd", "\xff", "\x00", "\n", "a\r\nb", "\t", "", "amq.default", "amq.topic", "ﬂ°°34¶ß", "ﬂ°quot¶ß", strings.Repeat("long.", 51),
}

func nastyTopology(a, b, key, value string) Topology {
	return Topology{
		Exchanges: []Exchange{{Name: a, Kind: Headers, Alternate: b}, {Name: b + "2", Kind: Kind(key), Args: map[string]any{value: key}}},
		Queues:    []Queue{{Name: a, Type: b, DeadLetterExchange: b, DeadLetterKey: key}, {Name: b + "2", Args: map[string]any{"x": value}, Overflow: Overflow(value)}},
		Bindings: []Binding{
			{Exchange: a, Queue: a, Key: key}, {Exchange: a, ToExchange: b + "2", Args: map[string]any{key: value}},
			{Exchange: b, Queue: b, Key: value, Args: map[string]any{"x": []any{key, 1, map[string]any{value: nil}}}},
		},
	}
}

func TestDrawNastyNames(t *testing.T) {
	for i, name := range nastyNames {
		checkDrawn(t, nastyTopology(name, nastyNames[(i+7)%len(nastyNames)], name, name))
	}
	if got := checkDrawn(t, Topology{Queues: []Queue{{Name: "a\nb\xff\u202e"}}}); got.nodes["q0"] != `a\nb\xff\u202e` {
		t.Errorf("what cannot be seen is shown as %q", got.nodes["q0"])
	}
	if got := mermaidText("- x.y www.a.b"); got != "#45; x.y www#46;a.b" {
		t.Errorf("%q", got)
	}
}

func FuzzDraw(f *testing.F) {
	for i, name := range nastyNames {
		f.Add(name, nastyNames[(i+3)%len(nastyNames)], nastyNames[(i+11)%len(nastyNames)], nastyNames[(i+5)%len(nastyNames)])
	}
	f.Fuzz(func(t *testing.T, a, b, key, value string) { checkDrawn(t, nastyTopology(a, b, key, value)) })
}
