// Package bench holds the side-by-side benchmarks: polymq, the raw clients and
// its peers in one run, doing the same work. The command compare runs them and
// writes docs/BENCHMARKS.md; make bench does so.
//
// The tests here are of what compare measures, and benchmarks of what only
// polymq has.
package bench
