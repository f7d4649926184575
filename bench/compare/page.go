package main

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// notes are what is to be said about the figures: of a section NAME.md.
//
//go:embed notes
var notes embed.FS

// note is the text of a section; most have none.
func note(name string) string {
	data, err := notes.ReadFile("notes/" + name + ".md")
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	return strings.TrimSpace(string(data)) + "\n\n"
}

// section is one operation on the page.
type section struct{ op, title string }

var sections = []section{
	{"publish", "One caller, publish and wait"},
	{"pipeline-256", "Pipelined, 256 outstanding"},
	{"pipeline-1024", "Pipelined, 1024 outstanding"},
	{"callers-64", "64 callers, each publish and wait"},
	{"consume", "Consume and acknowledge, prefetch 256"},
	{"latency", "From publish to receive, at 500 messages a second"},
	{"fanout-1", "Through a topic exchange to one queue"},
	{"fanout-3", "Through a topic exchange to 3 queues"},
	{"fanout-10", "Through a topic exchange to 10 queues"},
	{"flow", "In memory: publish, receive and acknowledge"},
	{"routing", "Matching a topic against many bindings"},
}

// write makes the pages of the results.
func (r *Results) write(root string) error {
	dir := filepath.Join(root, "docs", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	b.WriteString(note("head"))
	r.sort()
	for _, s := range sections {
		cells := r.of(s.op)
		if len(cells) == 0 {
			continue
		}
		fmt.Fprintf(&b, "## %s\n\n", s.title)
		b.WriteString(note(s.op))
		if s.op != "routing" {
			fmt.Fprintf(&b, "![%s](bench/%s.svg)\n\n", s.title, s.op)
			if err := os.WriteFile(filepath.Join(dir, s.op+".svg"), bars(s, cells), 0o644); err != nil {
				return err
			}
		}
		table(&b, s.op, cells)
	}
	if len(r.Curves) > 0 {
		b.WriteString("# How it grows\n\n" + note("growth"))
	}
	for _, ch := range charts {
		curves := r.curves(ch.name)
		if len(curves) == 0 {
			continue
		}
		title := strings.ToUpper(ch.name[:1]) + ch.name[1:]
		fmt.Fprintf(&b, "## %s\n\n![%s](bench/growth-%s.svg)\n\n%s", title, title, ch.name, note("growth-"+ch.name))
		if err := os.WriteFile(filepath.Join(dir, "growth-"+ch.name+".svg"), lines(ch, curves), 0o644); err != nil {
			return err
		}
		curveTable(&b, ch, curves)
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "BENCHMARKS.md"), append(bytes.TrimSpace(b.Bytes()), '\n'), 0o644); err != nil {
		return err
	}
	return r.readme(filepath.Join(root, "README.md"))
}

// sort puts the cells in the order in which they are measured.
func (r *Results) sort() {
	order := func(name string) int {
		return slices.IndexFunc(backends, func(b backend) bool { return b.name == name })
	}
	slices.SortStableFunc(r.Cells, func(a, b Cell) int {
		if d := opOrder(a.Op) - opOrder(b.Op); d != 0 {
			return d
		}
		if d := order(a.Backend) - order(b.Backend); d != 0 {
			return d
		}
		return a.Size - b.Size
	})
	slices.SortStableFunc(r.Curves, func(a, b Curve) int { return strings.Compare(a.Chart, b.Chart) })
}

func opOrder(op string) int {
	return slices.IndexFunc(sections, func(s section) bool { return s.op == op })
}

func (r *Results) of(op string) (cells []Cell) {
	for _, c := range r.Cells {
		if c.Op == op {
			cells = append(cells, c)
		}
	}
	return cells
}

func (r *Results) curves(chart string) (curves []Curve) {
	for _, c := range r.Curves {
		if c.Chart == chart {
			curves = append(curves, c)
		}
	}
	return curves
}

func table(b *bytes.Buffer, op string, cells []Cell) {
	switch op {
	case "latency":
		b.WriteString("| backend | | p50 µs | min to max | p99 µs | of raw | of the best raw | allocations | CPU µs |\n| --- | --- | ---: | --- | ---: | --- | ---: | ---: | ---: |\n")
	case "routing":
		b.WriteString("| bindings | | ns a topic | min to max | of gsl | allocations | bytes a binding |\n| ---: | --- | ---: | --- | --- | ---: | ---: |\n")
	case "flow":
		b.WriteString("| bytes | | messages/s | min to max | of Watermill | allocations | CPU µs |\n| ---: | --- | ---: | --- | --- | ---: | ---: |\n")
	default:
		b.WriteString("| backend, bytes | | messages/s | min to max | of raw | of the best raw | allocations | CPU µs |\n| --- | --- | ---: | --- | --- | ---: | ---: | ---: |\n")
	}
	for _, c := range cells {
		for i, e := range c.Entries {
			row := ""
			if i == 0 {
				switch op {
				case "latency":
					row = c.Backend
				case "routing", "flow":
					row = strconv.Itoa(c.Size)
				default:
					row = fmt.Sprintf("%s, %d", c.Backend, c.Size)
				}
			}
			who := e.Name
			if who == "polymq" {
				who = "**polymq**"
			}
			ratio := fmt.Sprintf("%.2f (%.2f to %.2f)", e.Ratio.Median, e.Ratio.Min, e.Ratio.Max)
			span := number(e.Value.Min) + " to " + number(e.Value.Max)
			if e.Name == "polymq" {
				if f := judge(c); f != "" {
					ratio += ": " + f
				}
			}
			switch op {
			case "latency":
				fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %s | %.2f | %.1f | %.1f |\n", row, who, number(e.Value.Median), span, number(e.P99.Median), ratio, e.Best.Median, e.Allocs, e.CPU)
			case "routing":
				fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %.1f | %.0f |\n", row, who, number(e.Value.Median), span, ratio, e.Allocs, e.Bytes)
			case "flow":
				fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %.1f | %.2f |\n", row, who, number(e.Value.Median), span, ratio, e.Allocs, e.CPU)
			default:
				fmt.Fprintf(b, "| %s | %s | %s | %s | %s | %.2f | %.1f | %.2f |\n", row, who, number(e.Value.Median), span, ratio, e.Best.Median, e.Allocs, e.CPU)
			}
		}
	}
	fmt.Fprintf(b, "\n%s\n\n", provenance(cells))
}

// provenance says when and on what the rows were measured.
func provenance(cells []Cell) string {
	oldest, newest, least := cells[0], cells[0], cells[0]
	for _, c := range cells {
		if c.When.Before(oldest.When) {
			oldest = c
		}
		if c.When.After(newest.When) {
			newest = c
		}
		if c.Rounds < least.Rounds {
			least = c
		}
	}
	when := oldest.When.Format("2006-01-02")
	if last := newest.When.Format("2006-01-02"); last != when {
		when += " to " + last
	}
	return fmt.Sprintf("Medians of %d rounds; %s; %s.", least.Rounds, newest.Machine, when)
}

// curveTable has a dash where a line has no point: it would have taken too long.
func curveTable(b *bytes.Buffer, ch chart, curves []Curve) {
	xs := abscissas(curves)
	fmt.Fprintf(b, "| %s, by %s |", ch.y, ch.x)
	for _, x := range xs {
		fmt.Fprintf(b, " %s |", number(x))
	}
	fmt.Fprintf(b, "\n| --- |%s\n", strings.Repeat(" ---: |", len(xs)))
	for _, c := range curves {
		fmt.Fprintf(b, "| %s |", c.Line)
		for _, x := range xs {
			y := "-"
			if i := slices.IndexFunc(c.Points, func(p Point) bool { return p.X == x }); i >= 0 {
				y = number(c.Points[i].Y.Median)
			}
			fmt.Fprintf(b, " %s |", y)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
}

// abscissas is where any of the curves has a point.
func abscissas(curves []Curve) (xs []float64) {
	for _, c := range curves {
		for _, p := range c.Points {
			xs = append(xs, p.X)
		}
	}
	slices.Sort(xs)
	return slices.Compact(xs)
}

// number is three digits of it.
func number(v float64) string {
	switch abs := math.Abs(v); {
	case abs >= 1e6:
		return strconv.FormatFloat(v/1e6, 'f', 2, 64) + " M"
	case abs >= 1e5:
		return strconv.FormatFloat(v/1e3, 'f', 0, 64) + " k"
	case abs >= 1e4:
		return strconv.FormatFloat(v/1e3, 'f', 1, 64) + " k"
	case abs >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}

// readme writes the short table into README.md.
func (r *Results) readme(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const open, end = "<!-- speed -->\n", "<!-- /speed -->"
	before, rest, ok := strings.Cut(string(text), open)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for the table of speed", path)
	}
	if len(r.Cells) == 0 {
		return nil
	}
	var b strings.Builder
	columns := []section{{"publish", "publish and wait"}, {"pipeline-1024", "pipelined"}, {"callers-64", "64 callers"}, {"consume", "consume"}, {"latency", "latency p50"}}
	b.WriteString("|  |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	fmt.Fprintf(&b, "\n| --- |%s\n", strings.Repeat(" --- |", len(columns)))
	for _, backend := range backends {
		fmt.Fprintf(&b, "| %s |", backend.name)
		for _, column := range columns {
			b.WriteString(" " + r.short(column.op, backend.name) + " |")
		}
		b.WriteString("\n")
	}
	return os.WriteFile(path, []byte(before+open+b.String()+end+after), 0o644)
}

// short is one cell of the README's table: of raw, and of the best peer.
func (r *Results) short(op, backend string) string {
	for _, c := range r.of(op) {
		ours, ok := c.find("polymq")
		if c.Backend != backend || c.Size != 256 || !ok {
			continue
		}
		text := fmt.Sprintf("%.2f", ours.Ratio.Median)
		best := Entry{}
		for _, e := range c.Entries {
			if e.peer() && (best.Name == "" || (e.Ratio.Median > best.Ratio.Median) != lower(op)) {
				best = e
			}
		}
		if best.Name != "" {
			text += fmt.Sprintf(" (%.2f)", best.Ratio.Median)
		}
		return text
	}
	return ""
}
