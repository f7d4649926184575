package routing

import (
	"fmt"
	"strings"
	"unicode"
)

// Mermaid is the topology as a flowchart in Mermaid, which many viewers of
// Markdown draw. Exchanges are hexagons with their kind, queues cylinders with
// what they say beside their names, in the words of JSON files. Bindings are
// arrows with their key or arguments; dead letters and alternate exchanges are
// dashed ones. The default exchange leads to every queue and is not drawn,
// except where dead letters or an alternate go there and no key says on. What
// the topology names without declaring it has a dashed outline.
//
// The text is the same whatever the order of the elements, and sound whatever
// their names. Nothing is validated. Mermaid draws up to 500 arrows and 50,000
// characters unless configured otherwise; DOT has no such limit.
func (t Topology) Mermaid() string {
	d := t.draw()
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	const outside = "outside"
	drawn := false
	for _, n := range d.nodes {
		before, after, class := `[("`, `")]`, ""
		if n.exchange {
			before, after = `{{"`, `"}}`
		}
		if !n.known {
			class, drawn = ":::"+outside, true
		}
		lines := make([]string, len(n.lines))
		for i, line := range n.lines {
			lines[i] = mermaidText(line)
		}
		fmt.Fprintf(&b, "    %s%s%s%s%s\n", n.id, before, strings.Join(lines, "<br/>"), after, class)
	}
	for _, e := range d.arrows {
		arrow, label := "-->", ""
		if e.dashed {
			arrow = "-.->"
		}
		if e.label != "" {
			label = `|"` + mermaidText(e.label) + `"|`
		}
		fmt.Fprintf(&b, "    %s %s%s %s\n", e.from, arrow, label, e.to)
	}
	if drawn {
		fmt.Fprintf(&b, "    classDef %s stroke-dasharray: 4 4\n", outside)
	}
	return b.String()
}

// Mermaid looks for these when it has decoded the entities: line breaks,
// formulas, icons, and its own form of entities. A word joiner, which cannot be
// seen, parts them.
var mermaidBreaks = strings.NewReplacer(`\n`, "\\\u2060n", "$", "$\u2060", ":fa-", ":\u2060fa-", "ﬂ°", "ﬂ\u2060°", "¶ß", "¶\u2060ß")

// mermaidText leaves letters and digits, and what stands between two of them
// and means nothing there. All else could be markup to some version of Mermaid,
// to Markdown, which it takes labels for, or to HTML: it becomes an entity.
func mermaidText(s string) string {
	var b strings.Builder
	runes := []rune(mermaidBreaks.Replace(s))
	word := func(i int) bool {
		return i >= 0 && i < len(runes) && (unicode.IsLetter(runes[i]) || unicode.IsDigit(runes[i]))
	}
	for i, r := range runes {
		within := word(i-1) && word(i+1)
		switch {
		case word(i), within && (r == '-' || r == '_'):
			b.WriteRune(r)
		case within && r == '.' && !strings.HasSuffix(strings.ToLower(b.String()), "www"): // would be a link
			b.WriteRune(r)
		case r == ' ' && i > 0 && i < len(runes)-1 && runes[i-1] != ' ':
			b.WriteRune(r)
		case r == ' ': // HTML would swallow it
			b.WriteString("#160;")
		default:
			fmt.Fprintf(&b, "#%d;", r)
		}
	}
	return b.String()
}
