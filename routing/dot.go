package routing

import (
	"fmt"
	"strings"
)

// DOT is the topology as a graph for Graphviz, drawn as Mermaid does it:
//
//	dot -Tsvg topology.dot > topology.svg
func (t Topology) DOT() string {
	d := t.draw()
	var b strings.Builder
	b.WriteString("digraph topology {\n\trankdir=LR;\n\tnode [fontname=\"sans-serif\"];\n\tedge [fontname=\"sans-serif\"];\n")
	for _, n := range d.nodes {
		shape, style := "cylinder", ""
		if n.exchange {
			shape = "hexagon"
		}
		if !n.known {
			style = ", style=dashed"
		}
		fmt.Fprintf(&b, "\t%s [shape=%s%s, label=%s];\n", n.id, shape, style, dotText(n.lines...))
	}
	for _, e := range d.arrows {
		var says []string
		if e.label != "" {
			says = append(says, "label="+dotText(e.label))
		}
		if e.dashed {
			says = append(says, "style=dashed")
		}
		fmt.Fprintf(&b, "\t%s -> %s", e.from, e.to)
		if len(says) > 0 {
			fmt.Fprintf(&b, " [%s]", strings.Join(says, ", "))
		}
		b.WriteString(";\n")
	}
	b.WriteString("}\n")
	return b.String()
}

// In a label a backslash begins an escape, and an ampersand an entity.
var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `&`, `&amp;`)

func dotText(lines ...string) string {
	escaped := make([]string, len(lines))
	for i, line := range lines {
		escaped[i] = dotEscapes.Replace(line)
	}
	return `"` + strings.Join(escaped, `\n`) + `"`
}
