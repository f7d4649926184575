package main

import (
	"fmt"
	"strings"
)

// figure is what polymq is to show in a row, as its ratio to plain raw code.
type figure struct {
	ratio  float64
	allocs float64 // at most so many above raw
}

// noise is what a ratio may be off by.
const noise = 0.05

// figureOf is the row's figure; none where it has none.
func figureOf(op, backend string, size int) (f figure, ok bool) {
	broker, kind, _ := strings.Cut(backend, "-")
	small := size <= 256
	switch {
	case op == "publish":
		return figure{0.95, 3}, true
	case strings.HasPrefix(op, "pipeline"):
		switch {
		case broker == "jetstream" && small:
			return figure{1.5, 2}, true
		case broker == "jetstream":
			return figure{1.15, 2}, true
		}
		return figure{0.95, 2}, true
	case op == "callers-64":
		switch {
		case broker != "redis":
			return figure{0.95, 3}, true
		case !small:
			return figure{1.15, 3}, true
		case kind == "off":
			return figure{3, 3}, true
		}
		return figure{1.5, 3}, true
	case op == "consume":
		switch {
		case broker != "rabbitmq":
			return figure{0.95, 3}, true
		case small && kind == "classic":
			return figure{2, 3}, true
		case small:
			return figure{1.4, 3}, true
		case kind == "classic":
			return figure{1.1, 3}, true
		}
		return figure{1, 3}, true
	case op == "latency":
		return figure{1.15, 0}, true
	case op == "flow":
		return figure{15, 3}, true
	case op == "routing" && size == 1_000_000:
		return figure{1.0 / 3, 0}, true
	}
	return figure{}, false
}

// tableBytes is what a binding may take in the compiled table.
const tableBytes = 120

// judge says how a row stands: "" is as it is to be.
func judge(c Cell) string {
	ours, ok := c.find("polymq")
	if !ok {
		return ""
	}
	var faults []string
	if f, ok := figureOf(c.Op, c.Backend, c.Size); ok {
		got, want := ours.Ratio.Median, f.ratio
		short := got < want-noise
		far := got < 0.85*want
		if lower(c.Op) {
			short = got > want+noise
			far = got > want/0.85
		}
		switch {
		case far:
			faults = append(faults, fmt.Sprintf("FAR BELOW %.2f", want))
		case short:
			faults = append(faults, fmt.Sprintf("below %.2f", want))
		}
		base := c.Entries[0].Allocs
		if c.Op == "flow" || c.Op == "routing" {
			base = 0
		}
		if over := ours.Allocs - base; c.Op != "latency" && over > f.allocs+0.3 {
			faults = append(faults, fmt.Sprintf("%.1f allocations above raw, want %.0f", over, f.allocs))
		}
		if c.Op == "routing" && ours.Bytes > tableBytes {
			faults = append(faults, fmt.Sprintf("%.0f bytes a binding, want %d", ours.Bytes, tableBytes))
		}
	}
	for _, e := range c.Entries {
		if !e.peer() {
			continue
		}
		behind := e.Ours.Median < 1-noise
		if lower(c.Op) {
			behind = e.Ours.Median > 1+noise
		}
		if behind {
			faults = append(faults, "BEHIND "+e.Name)
		}
	}
	return strings.Join(faults, "; ")
}
