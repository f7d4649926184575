// Matrix runs the conformance suite and the oracle on the versions of brokers
// that the library promises, and writes what came of it to docs/MATRIX.md:
//
//	go run ./internal/testbroker/cmd/matrix [row ...]
//
// A row is named as its first column says, or by a beginning of that: redis-8,
// rabbitmq. Rows that are not named stay as the page has them, so that a run that
// was interrupted is continued by naming those that are left. It installs what
// is missing by matrix.sh, and exits with 1 when a row fails or could not run.
// The oracle plays the scripts of make test, on some brokers a part of them, or
// ORACLE_SCRIPTS of them, or random ones for ORACLE_SECONDS.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		os.Exit(1)
	}
}

// errFailed: the page says what.
var errFailed = errors.New("rows failed, see " + page)

func run(ctx context.Context, names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	old, err := readPage(page)
	if err != nil {
		return err
	}
	// Everything that the tests leave in temporary files goes with this folder.
	dir, err := os.MkdirTemp("", "polymq-matrix-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	began := time.Now()
	// Once, so that all rows test the same.
	suites, err := build(ctx, dir)
	if err != nil {
		return err
	}
	results := runAll(ctx, suites, install(ctx, chosen), func(done []result) error { return writePage(page, merged(old, done)) })
	if err := context.Cause(ctx); err != nil {
		return err
	}
	fmt.Println("all of it took", time.Since(began).Round(time.Second))
	for _, r := range results {
		if !r.ok() {
			return errFailed
		}
	}
	return nil
}

// choose finds the entries that are named; all, where none is.
func choose(names []string) ([]entry, error) {
	if len(names) == 0 {
		return entries, nil
	}
	var chosen []entry
	taken := map[string]bool{}
	for _, name := range names {
		found := false
		for _, e := range entries {
			if !strings.HasPrefix(e.name, name) {
				continue
			}
			found = true
			if !taken[e.name] {
				taken[e.name] = true
				chosen = append(chosen, e)
			}
		}
		if !found {
			var all []string
			for _, e := range entries {
				all = append(all, e.name)
			}
			return nil, fmt.Errorf("no row begins with %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return chosen, nil
}

// runAll runs what is installed, twice as many at a time as there are processors,
// since the suite waits more than it works, and hands what is done to save after
// each.
func runAll(ctx context.Context, s suites, ready []installed, save func([]result) error) []result {
	var mu sync.Mutex
	var done []result
	add := func(r result) {
		mu.Lock()
		defer mu.Unlock()
		done = append(done, r)
		if err := save(done); err != nil {
			fmt.Fprintln(os.Stderr, "matrix:", err)
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 2*runtime.NumCPU())
	for _, i := range ready {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if r := s.run(ctx, i); ctx.Err() == nil {
				add(r)
			}
		})
	}
	wg.Wait()
	return done
}
