package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Results is bench/results.json. A run replaces in it what it has measured, and
// leaves the rest.
type Results struct {
	Cells  []Cell  `json:"cells"`
	Curves []Curve `json:"curves"`
}

// Cell is one row of the tables.
type Cell struct {
	Op      string    `json:"op"`
	Backend string    `json:"backend"`
	Size    int       `json:"size"` // bytes; of routing, bindings
	When    time.Time `json:"when"`
	Machine string    `json:"machine"`
	Rounds  int       `json:"rounds"`
	Entries []Entry   `json:"entries"`
}

// Entry is what one contender did in it.
type Entry struct {
	Name   string  `json:"name"`
	Value  Spread  `json:"value"`         // messages a second; of latency and routing, the time
	P99    *Spread `json:"p99,omitempty"` // of latency
	Ratio  Spread  `json:"ratio"`         // to the first entry, within the round
	Best   Spread  `json:"best"`          // to the best raw code, within the round
	Ours   Spread  `json:"ours"`          // polymq's to it, within the round
	Allocs float64 `json:"allocs"`        // a message
	CPU    float64 `json:"cpu"`           // microseconds of the client's process a message
	Bytes  float64 `json:"bytes,omitempty"`
}

// raw reports whether an entry is code without a library.
func (e Entry) raw() bool { return e.Name == "raw" || e.Name == "fast" }

// peer reports whether an entry is another library.
func (e Entry) peer() bool {
	return strings.HasPrefix(e.Name, "watermill") || e.Name == "gocdk" || e.Name == "gsl"
}

// lower reports whether less is better.
func lower(op string) bool { return op == "latency" || op == "routing" }

func newCell(op, backend string, size int, trials []trial, rounds [][]sample) Cell {
	c := Cell{Op: op, Backend: backend, Size: size, When: time.Now().UTC().Truncate(time.Second), Machine: machine(), Rounds: len(rounds[0])}
	column := func(i int, f func(s sample) float64) Spread {
		var xs []float64
		for _, s := range rounds[i] {
			xs = append(xs, f(s))
		}
		return spread(xs)
	}
	ratio := func(i, to int) Spread {
		var xs []float64
		for k := range min(len(rounds[i]), len(rounds[to])) { // peers have the first ones
			xs = append(xs, rounds[i][k].value/rounds[to][k].value)
		}
		return spread(xs)
	}
	best, ours := 0, 0
	for i, t := range trials {
		e := Entry{Name: t.name, Value: column(i, func(s sample) float64 { return s.value }),
			Allocs: column(i, func(s sample) float64 { return s.allocs }).Median,
			CPU:    column(i, func(s sample) float64 { return s.cpu }).Median}
		if op == "latency" {
			p99 := column(i, func(s sample) float64 { return s.p99 })
			e.P99 = &p99
		}
		c.Entries = append(c.Entries, e)
		if better := e.Value.Median > c.Entries[best].Value.Median; e.raw() && better != lower(op) {
			best = i
		}
		if e.Name == "polymq" {
			ours = i
		}
	}
	for i := range c.Entries {
		c.Entries[i].Ratio, c.Entries[i].Best, c.Entries[i].Ours = ratio(i, 0), ratio(i, best), ratio(ours, i)
	}
	return c
}

// find is the entry of that name.
func (c Cell) find(name string) (Entry, bool) {
	i := slices.IndexFunc(c.Entries, func(e Entry) bool { return e.Name == name })
	if i < 0 {
		return Entry{}, false
	}
	return c.Entries[i], true
}

func (c Cell) text() string {
	var b strings.Builder
	for _, e := range c.Entries {
		fmt.Fprintf(&b, "%-13s %-16s %7d  %-15s %9s (%s-%s)  ratio %.2f (%.2f-%.2f)  of best %.2f  %5.1f allocs  %6.2f us cpu",
			c.Op, c.Backend, c.Size, e.Name, number(e.Value.Median), number(e.Value.Min), number(e.Value.Max),
			e.Ratio.Median, e.Ratio.Min, e.Ratio.Max, e.Best.Median, e.Allocs, e.CPU)
		if e.P99 != nil {
			fmt.Fprintf(&b, "  p99 %s", number(e.P99.Median))
		}
		if e.Name == "polymq" {
			fmt.Fprintf(&b, "  %s", judge(c))
		}
		b.WriteString("\n")
	}
	return b.String()
}

// Curve is a line of the charts of growth.
type Curve struct {
	Chart   string    `json:"chart"`
	Line    string    `json:"line"`
	When    time.Time `json:"when"`
	Machine string    `json:"machine"`
	Rounds  int       `json:"rounds"`
	Points  []Point   `json:"points"`
}

// Point is a point of a curve.
type Point struct {
	X float64 `json:"x"`
	Y Spread  `json:"y"`
}

func (r *Results) put(c Cell) {
	r.Cells = replace(r.Cells, c, func(d Cell) bool { return d.Op == c.Op && d.Backend == c.Backend && d.Size == c.Size })
}

func (r *Results) draw(c Curve) {
	r.Curves = replace(r.Curves, c, func(d Curve) bool { return d.Chart == c.Chart && d.Line == c.Line })
}

func replace[T any](list []T, v T, same func(T) bool) []T {
	if i := slices.IndexFunc(list, same); i >= 0 {
		list[i] = v
		return list
	}
	return append(list, v)
}

func loadResults(path string) (*Results, error) {
	r := new(Results)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return nil, err
	}
	return r, json.Unmarshal(data, r)
}

func (r *Results) save(path string) error {
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(data, '\n'), 0o644)
}

// machine says what the figures are of.
func machine() string {
	return fmt.Sprintf("%d CPUs, %s/%s, %s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
}
