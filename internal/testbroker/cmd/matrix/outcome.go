package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// outcome is how the tests of one run ended.
type outcome struct {
	passed int
	failed []string
}

func (o outcome) ok() bool { return len(o.failed) == 0 }

func (o outcome) String() string {
	if len(o.failed) > 0 {
		return fmt.Sprintf("%d failed, %d passed", len(o.failed), o.passed)
	}
	return fmt.Sprintf("%d passed", o.passed)
}

// conformance runs the suite; a row is two levels below the test that runs it.
func (e entry) conformance() (outcome, error) {
	const rowDepth = 2
	return e.test(rowDepth, nil, "-timeout", "30m", "-run", "^TestConformance$", "./drivers/"+e.scheme+"/")
}

// oracle compares the drivers that are on the broker with RabbitMQ, by the
// scripts that make test plays, or for ORACLE_SECONDS.
func (e entry) oracle() (outcome, error) {
	const testDepth = 0
	var env []string
	if e.scheme != "amqp" {
		env = []string{"ORACLE_BACKENDS=amqp," + e.scheme}
	}
	return e.test(testDepth, env, "-timeout", "2h", "-run", "^TestOracle$", "./internal/oracle/")
}

// test runs go test on the broker. What counts is tests with depth slashes in
// their names; what others print is shown when they fail.
func (e entry) test(depth int, env []string, args ...string) (outcome, error) {
	cmd := exec.Command("go", append([]string{"test", "-json", "-race", "-count=1"}, args...)...)
	// Named brokers would be used instead of this one.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "POLYMQ_TEST_") && !strings.HasPrefix(name, "POLYMQ_RUN_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	if e.server != "" {
		cmd.Env = append(cmd.Env, "POLYMQ_TEST_"+strings.ToUpper(e.scheme)+"_SERVER="+e.server)
	}
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return outcome{}, err
	}
	if err := cmd.Start(); err != nil {
		return outcome{}, err
	}
	o, err := read(stdout, depth)
	if ended := cmd.Wait(); ended != nil && len(o.failed) == 0 {
		o.failed = []string{"as a whole: " + ended.Error()}
	}
	if err == nil && o.passed+len(o.failed) == 0 {
		err = errors.New("nothing was tested")
	}
	return o, err
}

// read reads what go test -json tells.
func read(r io.Reader, depth int) (outcome, error) {
	var o outcome
	output := map[string][]string{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var event struct{ Action, Test, Output string }
		if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
			return o, fmt.Errorf("%w: %s", err, lines.Text())
		}
		_, name, inner := strings.Cut(event.Test, "/")
		if !inner {
			name = event.Test
		}
		row := event.Test != "" && strings.Count(event.Test, "/") == depth
		switch event.Action {
		case "output", "build-output":
			output[event.Test] = append(output[event.Test], event.Output)
		case "fail":
			fmt.Print(strings.Join(output[event.Test], ""))
			if row {
				o.failed = append(o.failed, name)
			}
		case "skip": // a row that is known to fail
			if row {
				o.failed = append(o.failed, name+" (skipped)")
			}
		case "pass":
			if row {
				o.passed++
			}
		}
	}
	return o, lines.Err()
}
