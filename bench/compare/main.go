// Compare measures polymq beside the raw clients and its peers, on the same
// brokers in one interleaved run: the order of the contenders is rotated from
// round to round, and ratios are taken within a round.
//
//	go run ./compare                             all but growth
//	go run ./compare -run 'consume/redis'        what matches, of op/backend/size
//	go run ./compare -run growth                 how it grows
//
// It keeps what it has measured in results.json, beside what was measured
// before, and writes from that docs/BENCHMARKS.md with its charts, and the table
// in README.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run() error {
	filter := flag.String("run", "", "measure what matches this regular `expression` on op/backend/size (growth/chart/backend)")
	only := flag.String("only", "", "of the contenders, the first and those that match this regular `expression`")
	rounds := flag.Int("rounds", 9, "rounds")
	span := flag.Duration("time", 80*time.Millisecond, "length of a round of one contender")
	patience := flag.Duration("patience", 15*time.Second, "spend so long with a row and its peers, and twice as long without them, but three rounds")
	root := flag.String("root", "..", "the repository's `folder`")
	dry := flag.Bool("n", false, "only print: leave results.json and the pages as they are")
	page := flag.Bool("page", false, "measure nothing, write the pages again")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the last row to this `file`")
	flag.Parse()
	path := filepath.Join(*root, "bench", "results.json")
	results, err := loadResults(path)
	if err != nil {
		return err
	}
	if !*page {
		r := &runner{rounds: *rounds, span: *span, patience: *patience, profile: *profile, results: results}
		if r.match, err = regexp.Compile(*filter); err != nil {
			return err
		}
		if *only != "" {
			if r.only, err = regexp.Compile(*only); err != nil {
				return err
			}
		}
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
		defer stop()
		// What was measured is kept, whatever became of the rest.
		err = r.run(ctx, strings.Contains(*filter, "growth"))
		if *dry {
			return err
		}
	} else if *dry {
		return nil
	}
	if e := results.save(path); e != nil {
		return e
	}
	if e := results.write(*root); e != nil {
		return e
	}
	return err
}

func (r *runner) run(ctx context.Context, growth bool) (err error) {
	var stop func()
	if r.urls, stop, err = startBrokers(); err != nil {
		return err
	}
	defer stop()
	if growth {
		return r.growth(ctx)
	}
	if err := r.memory(ctx); err != nil {
		return err
	}
	for _, b := range backends {
		if err := r.backend(ctx, b); err != nil {
			return err
		}
	}
	return r.routing(ctx) // last: it leaves a large heap
}
