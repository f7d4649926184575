package main

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// The picture: panels side by side, in pixels.
const (
	columns     = 2
	panelWidth  = 440
	panelHeight = 200
	marginLeft  = 52
	marginTop   = 64
	panelTop    = 28 // of a panel, above its axes
	panelBottom = 28
)

var colours = []string{"#d55e00", "#0072b2", "#c33c86", "#1b7f5c"}

var panels = []struct {
	title string
	of    func(now, before sample) float64
}{
	{"heap in use after a collection, MiB", func(m, _ sample) float64 { return float64(m.Heap) / (1 << 20) }},
	{"goroutines", func(m, _ sample) float64 { return float64(m.Goroutines) }},
	{"resident memory of the process, MiB", func(m, _ sample) float64 { return float64(m.Resident) / (1 << 20) }},
	{"resident memory of the broker, MiB", func(m, _ sample) float64 { return float64(m.Broker) / (1 << 20) }},
	{"messages waiting", func(m, _ sample) float64 { return float64(m.Waiting) }},
	{"messages confirmed a second", func(m, before sample) float64 {
		return float64(m.Confirmed-before.Confirmed) / (m.At - before.At)
	}},
}

// plot draws the measurements as SVG.
func plot(head string, all []series) string {
	rows := (len(panels) + columns - 1) / columns
	width, height := columns*(panelWidth+marginLeft)+20, marginTop+rows*(panelHeight+panelTop+panelBottom)
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11">`+"\n", width, height)
	fmt.Fprintf(&b, `<rect width="%d" height="%d" fill="white"/>`+"\n", width, height)
	fmt.Fprintf(&b, `<text x="16" y="24" font-size="14">Soak: %s</text>`+"\n", html.EscapeString(head))
	for i, s := range all {
		x := 16 + 90*i
		fmt.Fprintf(&b, `<rect x="%d" y="36" width="14" height="4" fill="%s"/><text x="%d" y="42">%s</text>`+"\n", x, colours[i%len(colours)], x+20, html.EscapeString(s.backend))
	}
	end := 1.0
	for _, s := range all {
		for _, m := range s.samples {
			end = max(end, m.At)
		}
	}
	for i := range panels {
		x := float64(marginLeft + i%columns*(panelWidth+marginLeft))
		y := float64(marginTop + panelTop + i/columns*(panelHeight+panelTop+panelBottom))
		drawPanel(&b, x, y, i, all, end)
	}
	b.WriteString("</svg>\n")
	return b.String()
}

func drawPanel(b *strings.Builder, x, y float64, panel int, all []series, end float64) {
	p := panels[panel]
	lines, top := make([][]float64, len(all)), 0.0
	for i, s := range all {
		for j := 1; j < len(s.samples); j++ {
			v := p.of(s.samples[j], s.samples[j-1])
			lines[i] = append(lines[i], v)
			top = max(top, v)
		}
	}
	step := stepOf(top)
	top = max(step, math.Ceil(top/step)*step)
	fmt.Fprintf(b, `<text x="%.0f" y="%.0f" font-size="12">%s</text>`+"\n", x, y-8, p.title)
	for v := 0.0; v <= top; v += step {
		at := y + panelHeight*(1-v/top)
		fmt.Fprintf(b, `<line x1="%.0f" y1="%.1f" x2="%.0f" y2="%.1f" stroke="#ddd"/><text x="%.0f" y="%.1f" text-anchor="end">%g</text>`+"\n", x, at, x+panelWidth, at, x-4, at+4, v)
	}
	minutes := stepOf(end / 60)
	for v := 0.0; v*60 <= end; v += minutes {
		fmt.Fprintf(b, `<text x="%.1f" y="%.0f" text-anchor="middle">%g min</text>`+"\n", x+panelWidth*v*60/end, y+panelHeight+14, v)
	}
	for i, values := range lines {
		if len(values) == 0 {
			continue
		}
		points := make([]string, len(values))
		for j, v := range values {
			points[j] = fmt.Sprintf("%.1f,%.1f", x+panelWidth*all[i].samples[j+1].At/end, y+panelHeight*(1-v/top))
		}
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="%s"/>`+"\n", colours[i%len(colours)], strings.Join(points, " "))
	}
}

// stepOf is a round number, of which four to eight make top.
func stepOf(top float64) float64 {
	if top <= 0 {
		return 1
	}
	step := math.Pow(10, math.Floor(math.Log10(top)))
	for _, f := range []float64{0.1, 0.2, 0.5} {
		if top/(step*f) <= 8 {
			return step * f
		}
	}
	return step
}
