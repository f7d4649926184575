// Package leak fails the tests of a package that leave goroutines behind, as
// go.uber.org/goleak does, which this module does without as it does without
// every other requirement for tests.
package leak

import (
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patience is how long what has been told to end may take for it: a loaded
// machine does not run every goroutine at once.
const patience = 10 * time.Second

// Main runs the tests of a package, and fails where they leave a goroutine. It is
// the whole body of a TestMain whose package needs no brokers, and does not
// return.
func Main(m *testing.M) { os.Exit(Check(m.Run())) }

// Check is the exit code of tests that ended with code: 1 in place of 0 where a
// goroutine is left, whose stack it prints. Tests that failed may leave some.
func Check(code int) int {
	if code != 0 {
		return code
	}
	http.DefaultClient.CloseIdleConnections()
	if left := Left(patience); len(left) > 0 {
		fmt.Fprintf(os.Stderr, "leak: the tests left %d goroutines:\n\n%s\n", len(left), strings.Join(left, "\n\n"))
		return 1
	}
	return 0
}

// Left are the stacks of the goroutines that are still there after a while at
// most, but for the caller's and those of the standard library that stay.
func Left(within time.Duration) []string {
	deadline := time.Now().Add(within)
	for {
		left := others()
		if len(left) == 0 || time.Now().After(deadline) {
			return left
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// stays are functions of goroutines that nobody ends: the tests' own, and
// the one that hands signals on.
var stays = []string{"main.main(", "testing.", "os/signal.", "runtime.", "internal/synctest."}

func others() (stacks []string) {
	buf := make([]byte, 1<<16)
	n := runtime.Stack(buf, true)
	for ; n == len(buf); n = runtime.Stack(buf, true) {
		buf = make([]byte, 2*len(buf))
	}
	// The first is the caller's.
	_, rest, _ := strings.Cut(strings.TrimSpace(string(buf[:n])), "\n\n")
	for stack := range strings.SplitSeq(rest, "\n\n") {
		if stack != "" && !staying(stack) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// staying is whether a stack began in a function that stays; the line before the
// last but one, or that before "created by", names it.
func staying(stack string) bool {
	lines := strings.Split(stack, "\n")
	began := len(lines) - 2
	if i := began; i >= 0 && strings.HasPrefix(lines[i], "created by ") {
		began -= 2
	}
	if began < 1 {
		return true // it is only just beginning or ending
	}
	for _, s := range stays {
		if strings.HasPrefix(lines[began], s) {
			return true
		}
	}
	return false
}
