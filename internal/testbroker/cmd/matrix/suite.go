package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/polymq/polymq/internal/oracle"
)

// suites are test programs.
type suites struct {
	dir     string
	commit  string
	oracles chan struct{} // as many as may run at a time: they keep a processor busy
}

// The longest that a suite may take, and half of what an oracle may; what hangs is
// shown with its stacks.
const longest = 20 * time.Minute

// How many scripts the oracle plays on brokers that it does not compare with:
// the first of make test's.
const scripts = "200"

// build makes the test programs.
func build(ctx context.Context, dir string) (suites, error) {
	s := suites{dir: dir, oracles: make(chan struct{}, runtime.NumCPU())}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-race", "-o", dir+"/", "./drivers/amqp", "./drivers/nats", "./drivers/redis", "./internal/oracle")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return s, fmt.Errorf("build the tests: %w", err)
	}
	out, err := exec.CommandContext(ctx, "git", "rev-parse", "--short", "HEAD").Output()
	if err != nil {
		return s, fmt.Errorf("ask for the commit: %w", err)
	}
	s.commit = strings.TrimSpace(string(out))
	if err := exec.CommandContext(ctx, "git", "diff", "--quiet", "HEAD", "--", ".", ":(exclude)"+page).Run(); err != nil {
		s.commit += ", changed"
	}
	return s, nil
}

// run runs the suite and the oracle on one version.
func (s suites) run(ctx context.Context, i installed) result {
	r := result{Name: i.name, Broker: i.broker, Version: i.found, From: i.from, Commit: s.commit}
	if i.err != nil {
		r.Missing = i.err.Error()
		return r
	}
	fmt.Printf("%s: begins, %s %s\n", i.name, i.broker, i.found)
	began := time.Now()
	// A row is two levels below the test that runs it.
	r.Conformance = s.test(ctx, i, "./drivers/"+i.scheme, 2, longest, "^TestConformance$")
	if ctx.Err() != nil {
		return r // what was interrupted says nothing
	}
	r.Took = time.Since(began).Round(time.Second)
	fmt.Printf("%s: conformance: %s, in %v\n", i.name, r.Conformance, r.Took)
	select {
	case s.oracles <- struct{}{}:
		defer func() { <-s.oracles }()
	case <-ctx.Done():
		return r
	}
	began = time.Now()
	report := filepath.Join(s.dir, i.name+".json")
	env := []string{"ORACLE_REPORT=" + report}
	if i.scheme != "amqp" {
		env = append(env, "ORACLE_BACKENDS="+i.scheme, "ORACLE_SCRIPTS="+cmp.Or(os.Getenv("ORACLE_SCRIPTS"), scripts))
	}
	seconds, _ := time.ParseDuration(os.Getenv("ORACLE_SECONDS") + "s")
	played := s.test(ctx, i, "./internal/oracle", 0, 2*longest+seconds, "^TestOracle$", env...)
	if text, err := os.ReadFile(report); err != nil {
		played.Failed = append(played.Failed, "no report: "+err.Error())
	} else if err := json.Unmarshal(text, &r.Oracle); err != nil {
		played.Failed = append(played.Failed, "the report: "+err.Error())
	}
	if len(r.Oracle.Differences) == 0 {
		r.Oracle.Differences = played.Failed
	}
	if ctx.Err() != nil {
		return r
	}
	took := time.Since(began).Round(time.Second)
	r.Took += took
	fmt.Printf("%s: oracle: %s, in %v\n", i.name, r.oracleText(), took)
	return r
}

// test runs a test program on the broker; what counts is tests with depth
// slashes in their names.
func (s suites) test(ctx context.Context, i installed, pkg string, depth int, most time.Duration, pattern string, env ...string) outcome {
	ctx, cancel := context.WithTimeout(ctx, most+time.Minute)
	defer cancel()
	name := filepath.Base(pkg)
	program := exec.CommandContext(ctx, filepath.Join(s.dir, name+".test"), "-test.v=test2json", "-test.count=1", "-test.run="+pattern, "-test.timeout="+most.String())
	program.Dir = pkg
	// Named brokers would be used instead of this one.
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); !strings.HasPrefix(name, "POLYMQ_TEST_") && !strings.HasPrefix(name, "POLYMQ_RUN_") {
			program.Env = append(program.Env, v)
		}
	}
	program.Env = append(append(program.Env, "TMPDIR="+s.dir), env...)
	if i.server != "" {
		program.Env = append(program.Env, "POLYMQ_TEST_"+strings.ToUpper(i.scheme)+"_SERVER="+i.server)
	}
	r, w := io.Pipe()
	program.Stdout, program.Stderr = w, w
	program.WaitDelay = 10 * time.Second
	events := exec.CommandContext(ctx, "go", "tool", "test2json", "-p", name)
	events.Stdin, events.Stderr = r, os.Stderr
	stdout, err := events.StdoutPipe()
	if err != nil {
		return outcome{Failed: []string{err.Error()}}
	}
	if err := events.Start(); err != nil {
		return outcome{Failed: []string{err.Error()}}
	}
	ended := make(chan error, 1)
	go func() {
		err := program.Run()
		w.Close()
		ended <- err
	}()
	o, err := read(stdout, depth)
	if err != nil {
		o.Failed = append(o.Failed, err.Error())
	}
	if err := events.Wait(); err != nil {
		r.CloseWithError(err)
		o.Failed = append(o.Failed, "test2json: "+err.Error())
	}
	o.end(<-ended)
	return o
}

// result is a line of the page.
type result struct {
	Name, Broker, Version, From, Commit string
	Missing                             string // why it could not run
	Conformance                         outcome
	Oracle                              oracle.Report
	Took                                time.Duration
}

func (r result) ok() bool {
	return r.Missing == "" && r.Conformance.ok() && len(r.Oracle.Differences) == 0
}

func (r result) oracleText() string {
	if n := len(r.Oracle.Differences); n > 0 {
		return fmt.Sprintf("**differences: %d** in %d scripts", n, r.Oracle.Scripts)
	}
	return fmt.Sprintf("no difference in %d scripts", r.Oracle.Scripts)
}
