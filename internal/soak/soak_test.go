package main

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// run30 is what a run of half an hour would have measured.
func run30(change func(i int, m *sample)) series {
	s := series{backend: "amqp"}
	for i := range 360 {
		m := sample{At: 5 * float64(i+1), Heap: 4 << 20, Resident: 30 << 20, Goroutines: 20, Waiting: 3, Confirmed: int64(1000 * (i + 1))}
		if i < 60 {
			m.Heap, m.Goroutines = 9<<20, 40 // what warming up may take
		}
		change(i, &m)
		s.samples = append(s.samples, m)
	}
	return s
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(i int, m *sample)
		want   string
	}{
		{"steady", func(int, *sample) {}, ""},
		{"noise", func(i int, m *sample) { m.Heap += uint64(i%7) << 17; m.Goroutines += i % 3 }, ""},
		{"heap", func(i int, m *sample) { m.Heap += uint64(i) << 15 }, "heap grew"},
		{"memory", func(i int, m *sample) { m.Resident += uint64(i) << 18 }, "memory of the process grew"},
		{"goroutines", func(i int, m *sample) { m.Goroutines += i / 10 }, "goroutines grew"},
		{"waiting", func(i int, m *sample) { m.Waiting = 10 * i }, "messages wait"},
		{"slow", func(i int, m *sample) { m.Confirmed /= 2 }, "were confirmed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := strings.Join(judge(run30(c.change), 200), "; ")
			if got == "" != (c.want == "") || !strings.Contains(got, c.want) {
				t.Errorf("judge: %q, want %q", got, c.want)
			}
		})
	}
}

// TestSoak loads this process's memory for a moment and draws it.
func TestSoak(t *testing.T) {
	s := series{backend: "mem"}
	err := soak(t.Context(), "mem://TestSoak", settings{minutes: 0.05, rate: 100, every: 100 * time.Millisecond}, func(m sample) error {
		m.At = float64(len(s.samples)+1) / 10
		s.samples = append(s.samples, m)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n := len(s.samples); n < 5 || s.samples[n-1].Received == 0 || s.samples[n-1].Heap == 0 {
		t.Errorf("measured: %+v", s.samples)
	}
	picture := plot("a & b", []series{s})
	d := xml.NewDecoder(strings.NewReader(picture))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
	}
	if strings.Count(picture, "<polyline") != len(panels) || strings.Contains(picture, "NaN") {
		t.Errorf("not every panel is drawn:\n%s", picture)
	}
	if lines := strings.Count(table("", []series{s}), "\nmem,"); lines != len(s.samples) {
		t.Errorf("%d lines of %d", lines, len(s.samples))
	}
}

// TestSoakEnds: with its parent.
func TestSoakEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := soak(ctx, "mem://TestSoakEnds", settings{minutes: 60, rate: 10, every: 20 * time.Millisecond}, func(sample) error {
		cancel()
		return nil
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
