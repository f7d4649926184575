package main

import (
	"fmt"
	"slices"
)

// How much the last third of a run may have above the second third: a tenth, and
// this much, which is what a collector and a scheduler move by themselves.
const (
	spareHeap       = 1 << 20
	spareResident   = 8 << 20
	spareGoroutines = 2
)

// judge says what did not stay as it was. The first third is for warming up.
func judge(s series, rate int) (findings []string) {
	n := len(s.samples)
	if n < 6 {
		return []string{fmt.Sprintf("%d measurements are too few to say", n)}
	}
	second, last := s.samples[n/3:2*n/3], s.samples[2*n/3:]
	for _, c := range []struct {
		what  string
		of    func(sample) float64
		spare float64
	}{
		{"heap", func(m sample) float64 { return float64(m.Heap) }, spareHeap},
		{"memory of the process", func(m sample) float64 { return float64(m.Resident) }, spareResident},
		{"goroutines", func(m sample) float64 { return float64(m.Goroutines) }, spareGoroutines},
	} {
		before, after := median(second, c.of), median(last, c.of)
		if after > before*1.1+c.spare {
			findings = append(findings, fmt.Sprintf("%s grew from %.0f in the second third to %.0f in the last", c.what, before, after))
		}
	}
	if waiting := median(last, func(m sample) float64 { return float64(m.Waiting) }); waiting > 5*float64(rate) {
		findings = append(findings, fmt.Sprintf("%.0f messages wait in the last third, more than come in 5 s", waiting))
	}
	from, to := s.samples[0], s.samples[n-1]
	if got, want := float64(to.Confirmed-from.Confirmed), 0.9*float64(rate)*(to.At-from.At); got < want {
		findings = append(findings, fmt.Sprintf("%.0f messages were confirmed, of at least %.0f", got, want))
	}
	return findings
}

// summary is one line on a backend.
func (s series) summary() string {
	n := len(s.samples)
	if n == 0 {
		return s.backend + ": not measured"
	}
	second, last := s.samples[n/3:2*n/3+1], s.samples[2*n/3:]
	mib := func(of func(sample) uint64) string {
		f := func(m sample) float64 { return float64(of(m)) / (1 << 20) }
		return fmt.Sprintf("%.1f -> %.1f MiB", median(second, f), median(last, f))
	}
	count := func(m sample) float64 { return float64(m.Goroutines) }
	end := s.samples[n-1]
	return fmt.Sprintf("%s: confirmed=%d waiting=%d heap=%s resident=%s broker=%s goroutines=%.0f -> %.0f", s.backend, end.Confirmed, end.Waiting,
		mib(func(m sample) uint64 { return m.Heap }), mib(func(m sample) uint64 { return m.Resident }), mib(func(m sample) uint64 { return m.Broker }),
		median(second, count), median(last, count))
}

func median(samples []sample, of func(sample) float64) float64 {
	values := make([]float64, len(samples))
	for i, m := range samples {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[len(values)/2]
}
