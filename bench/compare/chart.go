package main

import (
	"bytes"
	"fmt"
	"html"
	"math"
)

// Charts are plain SVG, on white, so that they can be read on any page.

var colors = map[string]string{
	"raw": "#8a8a8a", "fast": "#4d4d4d", "loose": "#bdbdbd", "channel": "#bdbdbd",
	"polymq": "#1a6fb5", "watermill": "#f0b27a", "watermill-tuned": "#d35400", "gocdk": "#2e8b57",
}

var lineColors = []string{"#1a6fb5", "#d35400", "#2e8b57", "#8e44ad", "#c0392b", "#4d4d4d", "#16a085", "#b7950b", "#7f8c8d", "#2c3e50", "#e84393", "#00a8ff"}

func begin(b *bytes.Buffer, width, height float64, title string) {
	fmt.Fprintf(b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	text(b, 10, 18, "start", title, 14)
}

func text(b *bytes.Buffer, x, y float64, anchor, s string, size int) {
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" text-anchor="%s" font-size="%d" fill="#222">%s</text>`+"\n", x, y, anchor, size, html.EscapeString(s))
}

// bars are the ratios to raw, a group a row of the table. Bars that would be
// longer than the scale end at it, with their figure.
func bars(s section, cells []Cell) []byte {
	const left, right, top, bar, gap = 150.0, 760.0, 48.0, 9.0, 10.0
	height := top + 24
	most := 1.0
	for _, c := range cells {
		height += float64(len(c.Entries))*bar + gap
		for _, e := range c.Entries {
			if !lower(s.op) || !e.peer() {
				most = math.Max(most, e.Ratio.Median)
			}
		}
	}
	most = math.Min(most*1.05, 40)
	x := func(v float64) float64 { return left + math.Min(v, most)/most*(right-left) }
	to := "raw"
	if s.op == "flow" {
		to = "Watermill"
	}
	better := "more"
	if lower(s.op) {
		better = "less"
	}
	var b bytes.Buffer
	begin(&b, 860, height, fmt.Sprintf("%s: ratio to %s, %s is better", s.title, to, better))
	at := 150.0
	for _, name := range names(cells) {
		fmt.Fprintf(&b, `<rect x="%.1f" y="28" width="9" height="9" fill="%s"/>`+"\n", at, colors[name])
		text(&b, at+13, 36, "start", name, 11)
		at += 30 + 7*float64(len(name))
	}
	y := top
	for _, c := range cells {
		label := fmt.Sprintf("%s, %d B", c.Backend, c.Size)
		text(&b, left-8, y+float64(len(c.Entries))*bar/2+4, "end", label, 11)
		for _, e := range c.Entries {
			fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`+"\n", left, y, math.Max(x(e.Ratio.Median)-left, 0.5), bar-1, colors[e.Name])
			text(&b, x(e.Ratio.Median)+4, y+bar-1.5, "start", fmt.Sprintf("%.2f", e.Ratio.Median), 8)
			y += bar
		}
		y += gap
	}
	fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#222" stroke-dasharray="3 3"/>`+"\n", x(1), top-4, x(1), y)
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// names are the contenders of all cells, each once.
func names(cells []Cell) (all []string) {
	seen := map[string]bool{}
	for _, c := range cells {
		for _, e := range c.Entries {
			if !seen[e.Name] {
				seen[e.Name] = true
				all = append(all, e.Name)
			}
		}
	}
	return all
}

// lines are curves over a logarithmic x axis.
func lines(ch chart, curves []Curve) []byte {
	const left, right, top, bottom = 70.0, 560.0, 40.0, 330.0
	xmin, xmax, ymin, ymax := math.Inf(1), 0.0, math.Inf(1), 0.0
	for _, c := range curves {
		for _, p := range c.Points {
			xmin, xmax = math.Min(xmin, p.X), math.Max(xmax, p.X)
			ymin, ymax = math.Min(ymin, math.Max(p.Y.Median, 1e-3)), math.Max(ymax, p.Y.Median)
		}
	}
	if ch.log {
		ymin, ymax = math.Pow(10, math.Floor(math.Log10(ymin))), math.Pow(10, math.Ceil(math.Log10(ymax)))
	}
	x := func(v float64) float64 {
		return left + math.Log(v/xmin)/math.Max(math.Log(xmax/xmin), 1e-9)*(right-left)
	}
	y := func(v float64) float64 {
		if ch.log {
			return bottom - math.Log(math.Max(v, ymin)/ymin)/math.Log(ymax/ymin)*(bottom-top)
		}
		return bottom - v/ymax/1.05*(bottom-top)
	}
	var b bytes.Buffer
	begin(&b, 800, 370, fmt.Sprintf("%s by %s", ch.y, ch.x))
	rule := func(v float64) {
		fmt.Fprintf(&b, `<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="#ddd"/>`+"\n", left, y(v), right, y(v))
		text(&b, left-6, y(v)+4, "end", number(v), 10)
	}
	if ch.log {
		for v := ymin; v <= ymax*1.01; v *= 10 {
			rule(v)
		}
	} else {
		for i := range 5 {
			rule(ymax * float64(i) / 4)
		}
	}
	for _, v := range abscissas(curves) {
		text(&b, x(v), bottom+16, "middle", number(v), 10)
	}
	text(&b, (left+right)/2, bottom+32, "middle", ch.x, 11)
	for i, c := range curves {
		color := lineColors[i%len(lineColors)]
		fmt.Fprintf(&b, `<polyline fill="none" stroke="%s" stroke-width="2" points="`, color)
		for _, p := range c.Points {
			fmt.Fprintf(&b, "%.1f,%.1f ", x(p.X), y(p.Y.Median))
		}
		b.WriteString("\"/>\n")
		for _, p := range c.Points {
			fmt.Fprintf(&b, `<circle cx="%.1f" cy="%.1f" r="3" fill="%s"/>`+"\n", x(p.X), y(p.Y.Median), color)
		}
		ly := top + 14*float64(i)
		fmt.Fprintf(&b, `<rect x="%.1f" y="%.1f" width="9" height="9" fill="%s"/>`+"\n", right+16, ly, color)
		text(&b, right+30, ly+8, "start", c.Line, 10)
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
